// Tiles over a simdgroup, of kRows x 16 (kRows is 8 or 16): operands of halves or floats, float sums. Each lane holds
// kRows / 2 elements of a tile, in pairs of neighbours: element i is at row tile_row() + 8 (i / 4), column
// tile_column() + 8 (i / 2 % 2) + i % 2. Here a tile is 8x8 simdgroup_matrix, which M1 to M4 multiply as fast in floats
// as in halves; compilers for other GPUs bring their own (METAL_TILES).
#pragma once
#ifndef METAL_TILES

template <uint kRows>
struct TileSum {
  simdgroup_matrix<float, 8, 8> part[kRows / 4];  // [row half][column half]
};
template <class T, uint kRows>
struct TileLeft {
  simdgroup_matrix<T, 8, 8> part[kRows / 4];  // [row half][k half]
};
template <class T>
struct TileRight {
  simdgroup_matrix<T, 8, 8> part[4];  // [k half][column half]
};

// Lanes of an 8x8 part, as Apple's GPUs have them (undocumented; MLX relies on it too).
METAL_FUNC uint tile_row(uint lane) { return (lane / 4 & 4) + lane / 2 % 4; }
METAL_FUNC uint tile_column(uint lane) { return (lane / 4 & 2) * 2 + lane % 2 * 2; }
/// Over the lanes that share a row.
METAL_FUNC float tile_row_max(float x) {
  x = max(x, simd_shuffle_xor(x, ushort(1)));
  return max(x, simd_shuffle_xor(x, ushort(8)));
}
METAL_FUNC float tile_row_sum(float x) {
  x = x + simd_shuffle_xor(x, ushort(1));
  return x + simd_shuffle_xor(x, ushort(8));
}

template <uint kRows>
METAL_FUNC void tile_get(thread TileSum<kRows>& tile, thread float* x) {
  UNROLL
  for (uint i = 0; i < kRows / 2; ++i) x[i] = tile.part[i / 2].thread_elements()[int(i % 2)];
}
template <uint kRows>
METAL_FUNC void tile_set(thread TileSum<kRows>& tile, thread const float* x) {
  UNROLL
  for (uint i = 0; i < kRows / 2; ++i) tile.part[i / 2].thread_elements()[int(i % 2)] = x[i];
}
template <uint kRows>
METAL_FUNC void tile_set(thread TileLeft<half, kRows>& tile, thread const float* x) {
  UNROLL
  for (uint i = 0; i < kRows / 2; ++i) tile.part[i / 2].thread_elements()[int(i % 2)] = half(x[i]);
}
template <class T, uint kRows>
METAL_FUNC void tile_load(thread TileLeft<T, kRows>& tile, threadgroup const T* from, uint stride, uint lane) {
  UNROLL
  for (uint p = 0; p < kRows / 4; ++p)
    simdgroup_load(tile.part[p], from + 8 * (p / 2) * stride + 8 * (p % 2), ulong(stride));
}
/// Rows of memory are the columns of the tile: K, for q k^T.
template <class T>
METAL_FUNC void tile_load_transposed(thread TileRight<T>& tile, threadgroup const T* from, uint stride, uint lane) {
  UNROLL
  for (uint p = 0; p < 4; ++p)
    simdgroup_load(tile.part[p], from + 8 * (p % 2) * stride + 8 * (p / 2), ulong(stride), ulong2(0, 0), true);
}
template <class T>
METAL_FUNC void tile_load(thread TileRight<T>& tile, threadgroup const T* from, uint stride, uint lane) {
  UNROLL
  for (uint p = 0; p < 4; ++p) simdgroup_load(tile.part[p], from + 8 * (p / 2) * stride + 8 * (p % 2), ulong(stride));
}
template <class T, uint kRows>
METAL_FUNC void tile_multiply_add(thread TileSum<kRows>& sum, thread const TileLeft<T, kRows>& left,
                                  thread const TileRight<T>& right) {
  UNROLL
  for (uint p = 0; p < kRows / 4; ++p) {
    UNROLL
    for (uint k = 0; k < 2; ++k)
      simdgroup_multiply_accumulate(sum.part[p], left.part[p / 2 * 2 + k], right.part[2 * k + p % 2], sum.part[p]);
  }
}

#endif
