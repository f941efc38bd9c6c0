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

// Narrow tiles, of 16 x 8, for a few rows of x: left operands of 16 x 16, whose elements a lane has in words of two
// halves, and right ones of 16 x 8, which lie in threadgroup memory as lanes of NVIDIA's GPUs want them: a column is
// four times eight halves, elements (2 j, 2 j + 1, 2 j + 8, 2 j + 9) of the first tile and of the second.
struct NarrowSum {
  simdgroup_matrix<float, 8, 8> part[2];  // [row half]
};
struct NarrowRight {
  simdgroup_matrix<half, 8, 8> part[2];  // [k half]
};

/// Two halves in a word, the first in its low bits; and what they are.
METAL_FUNC uint two_halves(float low, float high) {
  return uint(as_type<ushort>(half(low))) | uint(as_type<ushort>(half(high))) << 16;
}
METAL_FUNC float2 wide_halves(uint two) {
  return float2(float(as_type<half>(ushort(two & 0xffffu))), float(as_type<half>(ushort(two >> 16))));
}
/// Bytes kFirst and kFirst + 1 of `of`, each as the half 1024 + byte.
template <uint kFirst>
METAL_FUNC uint two_bytes(uint of) {
  return 0x64006400u | (of >> (8 * kFirst) & 0xffu) | (of >> (8 * kFirst + 8) & 0xffu) << 16;
}
/// The bits of `of` that are in `mask`, and `others`.
METAL_FUNC uint bits_of(uint of, uint mask, uint others) { return (of & mask) | others; }
/// Two at a time, where results are halves, so that nothing is rounded: a - b, and a * b - c.
METAL_FUNC uint halves_less(uint a, uint b) {
  const float2 x = wide_halves(a), y = wide_halves(b);
  return two_halves(x.x - y.x, x.y - y.y);
}
METAL_FUNC uint halves_times_less(uint a, uint b, uint c) {
  const float2 x = wide_halves(a), y = wide_halves(b), z = wide_halves(c);
  return two_halves(x.x * y.x - z.x, x.y * y.y - z.y);
}

/// Copies that may end later: kBytes (4, 8 or 16) from `from`, or as many zeros. copies_begun() ends a batch of them;
/// behind copies_done<n>() this lane sees its own, but for the newest n batches. Here they end at once.
template <uint kBytes, class T>
METAL_FUNC void copy_later(threadgroup T* to, device const T* from, bool there) {
  static_assert(sizeof(T) == kBytes, "a copy is of one value");
  *to = there ? *from : T(0);
}
METAL_FUNC void copies_begun() {}
template <uint kBatches>
METAL_FUNC void copies_done() {}

METAL_FUNC void tile_clear(thread NarrowSum& tile) {
  UNROLL
  for (uint i = 0; i < 4; ++i) tile.part[i / 2].thread_elements()[int(i % 2)] = 0.0f;
}
/// Elements 0 and 1 are of row tile_row(), 2 and 3 of the one 8 below, in columns tile_column() and the next.
METAL_FUNC void tile_get(thread NarrowSum& tile, thread float* x) {
  UNROLL
  for (uint i = 0; i < 4; ++i) x[i] = tile.part[i / 2].thread_elements()[int(i % 2)];
}
/// of: two elements each, of rows (r, r + 8, r, r + 8), from columns (c, c, c + 8, c + 8) on.
METAL_FUNC void tile_set(thread TileLeft<half, 16>& tile, uint4 of) {
  UNROLL
  for (uint p = 0; p < 4; ++p) {
    const uint two = of[int(p % 2 * 2 + p / 2)];
    tile.part[p].thread_elements()[0] = as_type<half>(ushort(two & 0xffffu));
    tile.part[p].thread_elements()[1] = as_type<half>(ushort(two >> 16));
  }
}
/// `columns` is a power of two; behind them the first ones come again.
METAL_FUNC void tile_load(thread NarrowRight& first, thread NarrowRight& second, threadgroup const uint4* from,
                          uint columns, uint lane) {
  threadgroup const half* halves = (threadgroup const half*)from;
  UNROLL
  for (uint i = 0; i < 4; ++i) {
    const uint k = tile_row(lane), n = (tile_column(lane) + i % 2) & (columns - 1);
    const uint at = n * 32 + k / 2 * 8 + i / 2 * 2 + k % 2;
    first.part[i / 2].thread_elements()[int(i % 2)] = halves[at];
    second.part[i / 2].thread_elements()[int(i % 2)] = halves[at + 4];
  }
}
/// The same of what lanes hold: lane 4 n + j has column n's eight halves j. `room` is 32 long.
METAL_FUNC void tile_set(thread NarrowRight& first, thread NarrowRight& second, uint4 held, threadgroup uint4* room,
                         uint lane) {
  simdgroup_barrier(mem_flags::mem_threadgroup);
  room[lane] = held;
  simdgroup_barrier(mem_flags::mem_threadgroup);
  tile_load(first, second, room, 8, lane);
}
METAL_FUNC void tile_multiply_add(thread NarrowSum& sum, thread const TileLeft<half, 16>& left,
                                  thread const NarrowRight& right) {
  UNROLL
  for (uint p = 0; p < 2; ++p) {
    UNROLL
    for (uint k = 0; k < 2; ++k)
      simdgroup_multiply_accumulate(sum.part[p], left.part[2 * p + k], right.part[k], sum.part[p]);
  }
}

// Narrow tiles of whole numbers. Left operands are signed bytes, 16 x 32 or 16 x 16: lane j of the four that share a row
// has 4 j .. 4 j + 3 of 16, of rows tile_row() and the one 8 below, then of the next 16. Right ones, 32 x 8, are numbers
// of three signed bytes, p0 + 2^8 p1 + 2^16 p2: lane 4 n + j has those of column n at the same k. Sums are exact.
struct ByteRight {
  uint4 lower;  // two words of p0, two of p1
  uint2 upper;  // of p2
};
/// For each of the three bytes, elements as NarrowSum has them.
struct ByteSum {
  int x[3][4];
};

/// The first, second and third bytes of four numbers below 2^22: a word each.
METAL_FUNC void three_bytes(int a, int b, int c, int d, thread uint* words) {
  const uint of[4] = {uint(a), uint(b), uint(c), uint(d)};
  UNROLL
  for (uint p = 0; p < 3; ++p) {
    words[p] = 0;
    UNROLL
    for (uint i = 0; i < 4; ++i) words[p] |= (((of[i] + 0x00808080u) ^ 0x00808080u) >> (8 * p) & 255u) << (8 * i);
  }
}
METAL_FUNC int byte_dot(uint a, uint b) {
  int sum = 0;
  UNROLL
  for (uint i = 0; i < 4; ++i) sum += (int(a << (24 - 8 * i)) >> 24) * (int(b << (24 - 8 * i)) >> 24);
  return sum;
}
/// The lane that has row `row` of 8 and the j-th of its fours.
METAL_FUNC uint tile_lane(uint row, uint j) { return (j & 1) | (row & 3) << 1 | (j & 2) << 2 | (row & 4) << 2; }
/// The sums are these products; of halves 16 of k, or of both.
METAL_FUNC void tile_products(thread ByteSum& sum, uint4 left, thread const ByteRight& right, bool first, bool second,
                              uint lane) {
  UNROLL
  for (uint i = 0; i < 12; ++i) sum.x[i / 4][i % 4] = 0;
  UNROLL
  for (uint j = 0; j < 4; ++j) {
    const uint4 of = simd_shuffle(left, ushort(tile_lane(tile_row(lane), j)));
    UNROLL
    for (uint c = 0; c < 2; ++c) {
      const ushort from = ushort((tile_column(lane) + c) * 4 + j);
      const uint4 lower = simd_shuffle(right.lower, from);
      const uint2 upper = simd_shuffle(right.upper, from);
      const uint words[3][2] = {{lower.x, lower.y}, {lower.z, lower.w}, {upper.x, upper.y}};
      UNROLL
      for (uint p = 0; p < 3; ++p) {
        if (first) sum.x[p][c] += byte_dot(of.x, words[p][0]), sum.x[p][2 + c] += byte_dot(of.y, words[p][0]);
        if (second) sum.x[p][c] += byte_dot(of.z, words[p][1]), sum.x[p][2 + c] += byte_dot(of.w, words[p][1]);
      }
    }
  }
}
METAL_FUNC void tile_multiply(thread ByteSum& sum, uint4 left, thread const ByteRight& right, uint lane) {
  tile_products(sum, left, right, true, true, lane);
}
/// Of the first 16 of k alone, or of the second.
template <uint kHalf>
METAL_FUNC void tile_multiply_half(thread ByteSum& sum, uint4 left, thread const ByteRight& right, uint lane) {
  tile_products(sum, left, right, kHalf == 0, kHalf == 1, lane);
}

#endif

/// Element i of the products with the whole numbers.
METAL_FUNC float tile_value(thread const ByteSum& sum, uint i) {
  return fma(float(sum.x[2][i]), 65536.0f, float(sum.x[1][i] * 256 + sum.x[0][i]));
}
