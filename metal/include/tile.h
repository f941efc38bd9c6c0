// Tiles of 16x16 over a simdgroup: half operands, float sums. Each lane holds eight elements of a tile, in pairs of neighbours:
// element i is at row tile_row() + 8 (i / 4), column tile_column() + 8 (i / 2 % 2) + i % 2. Here a tile is four 8x8 simdgroup_matrix;
// compilers for other GPUs bring their own (METAL_TILES).
#pragma once
#ifndef METAL_TILES

struct TileSum {
  simdgroup_matrix<float, 8, 8> part[4];  // [row half][column half]
};
struct TileLeft {
  simdgroup_matrix<half, 8, 8> part[4];  // [row half][k half]
};
struct TileRight {
  simdgroup_matrix<half, 8, 8> part[4];  // [k half][column half]
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

METAL_FUNC void tile_get(thread TileSum& tile, thread float* x) {
  for (uint i = 0; i < 8; ++i) x[i] = tile.part[i / 2].thread_elements()[int(i % 2)];
}
METAL_FUNC void tile_set(thread TileSum& tile, thread const float* x) {
  for (uint i = 0; i < 8; ++i) tile.part[i / 2].thread_elements()[int(i % 2)] = x[i];
}
METAL_FUNC void tile_set(thread TileLeft& tile, thread const float* x) {
  for (uint i = 0; i < 8; ++i) tile.part[i / 2].thread_elements()[int(i % 2)] = half(x[i]);
}
METAL_FUNC void tile_load(thread TileLeft& tile, threadgroup const half* from, uint stride, uint lane) {
  for (uint h = 0; h < 2; ++h)
    for (uint k = 0; k < 2; ++k) simdgroup_load(tile.part[2 * h + k], from + 8 * h * stride + 8 * k, ulong(stride));
}
/// Rows of memory are the columns of the tile: K, for q k^T.
METAL_FUNC void tile_load_transposed(thread TileRight& tile, threadgroup const half* from, uint stride, uint lane) {
  for (uint k = 0; k < 2; ++k)
    for (uint n = 0; n < 2; ++n)
      simdgroup_load(tile.part[2 * k + n], from + 8 * n * stride + 8 * k, ulong(stride), ulong2(0, 0), true);
}
METAL_FUNC void tile_load(thread TileRight& tile, threadgroup const half* from, uint stride, uint lane) {
  for (uint k = 0; k < 2; ++k)
    for (uint n = 0; n < 2; ++n) simdgroup_load(tile.part[2 * k + n], from + 8 * k * stride + 8 * n, ulong(stride));
}
METAL_FUNC void tile_multiply_add(thread TileSum& sum, thread const TileLeft& left, thread const TileRight& right) {
  for (uint h = 0; h < 2; ++h)
    for (uint n = 0; n < 2; ++n)
      for (uint k = 0; k < 2; ++k)
        simdgroup_multiply_accumulate(sum.part[2 * h + n], left.part[2 * h + k], right.part[2 * k + n],
                                      sum.part[2 * h + n]);
}

#endif
