// Rows of x as linear_few's right operands, kTiles times eight of them. A block of 32 of a row becomes halves times a
// power of two of its own: the sum of two, 22 bits. That is done by units, a block of a row each, eight at a time: of
// eight rows' one block, of four rows' two, of one row's eight. What comes of a unit does not depend on which are done
// with it.
#pragma once
#include "few_weights.h"

constant constexpr uint kRowsOfTile = LinearFewLaunch::kRows, kSimdgroups = LinearFewLaunch::kSimdgroups;

template <class Weights, uint kTiles>
struct FewRows {
  enum : uint { kWords = kTiles * 64, kFactors = kTiles * 32 };  // of threadgroup memory, for a simdgroup
  device const float* in[kTiles];                                // this lane's part of the first block of its row
  device const float* norm;
  threadgroup uint4* words;    // [tile][two halves][lane]
  threadgroup float* factors;  // [tile][16 scales, 16 sums of squares]
  uint width, rows;
  uint columns, blocks;  // rows and blocks of eight units
  uint next;             // the block of what is held
  uint lane;
  float held[kTiles][8], by[8];

  METAL_FUNC void begin(device const float* x, device const float* norms, uint n_rows, uint in_features, uint first,
                        uint of_lane) {
    rows = n_rows, width = in_features, lane = of_lane, next = first;
    columns = n_rows > 4 ? 8u : n_rows > 2 ? 4u : n_rows;
    blocks = n_rows > 4 ? 1u : n_rows > 2 ? 2u : 8 / n_rows;
    const uint j = lane % 4, unit = lane / 4, k = unit / columns * 32 + place(0, j);
    norm = norms + k;
    UNROLL
    for (uint t = 0; t < kTiles; ++t) in[t] = x + ulong(t * kRowsOfTile + unit % columns) * width + k;
  }
  static METAL_FUNC uint place(uint i, uint j) { return Weights::kNeighbours ? j * 8 + i : i / 4 * 16 + j * 4 + i % 4; }
  /// The units that begin at block `next`: zeros behind the last row, and behind its end.
  METAL_FUNC void read(bool has_norm) {
    const uint row = lane / 4 & (columns - 1), k = next * 32;
    const bool inside = k + lane / 4 / columns * 32 + place(0, lane % 4) < width;
    UNROLL
    for (uint t = 0; t < kTiles; ++t) {
      UNROLL
      for (uint i = 0; i < 8; ++i) held[t][i] = 0.0f;
      if (inside && t * kRowsOfTile + row < rows) take(held[t], in[t] + k);
    }
    if (!has_norm) return;
    UNROLL
    for (uint i = 0; i < 8; ++i) by[i] = 0.0f;
    if (inside) take(by, norm + k);
  }
  /// Makes halves of what is held, and reads on; `ahead` is the block behind it.
  METAL_FUNC void convert(uint ahead, bool has_norm) {
    simdgroup_barrier(mem_flags::mem_threadgroup);  // the last ones have been read
    UNROLL
    for (uint t = 0; t < kTiles; ++t) {
      thread float* x = held[t];
      float squares = 0.0f, most = 0.0f;
      if (has_norm) {
        UNROLL
        for (uint i = 0; i < 8; ++i) squares = fma(x[i], x[i], squares), x[i] *= by[i];
        squares += simd_shuffle_xor(squares, ushort(1));
        squares += simd_shuffle_xor(squares, ushort(2));
      }
      UNROLL
      for (uint i = 0; i < 8; ++i) most = fmax(most, abs(x[i]));
      most = fmax(most, simd_shuffle_xor(most, ushort(1)));
      most = fmax(most, simd_shuffle_xor(most, ushort(2)));
      const Lift lift = lift_of(most);
      uint high[4], low[4];
      UNROLL
      for (uint i = 0; i < 4; ++i) {
        const uint at = Weights::kNeighbours ? 2 * i : i / 2 * 4 + i % 2;
        const float a = x[at] * lift.up, b = x[Weights::kNeighbours ? at + 1 : at + 2] * lift.up;
        high[i] = two_halves(a, b);
        const float2 taken = wide_halves(high[i]);
        low[i] = two_halves(a - taken.x, b - taken.y);
      }
      words[t * 64 + lane] = uint4(high[0], high[1], high[2], high[3]);
      words[t * 64 + 32 + lane] = uint4(low[0], low[1], low[2], low[3]);
      if (lane % 4 == 0) factors[t * 32 + lane / 4] = lift.down;
      if (has_norm && lane % 4 == 0) factors[t * 32 + 16 + lane / 4] = squares;
    }
    next = ahead;
    read(has_norm);
    simdgroup_barrier(mem_flags::mem_threadgroup);
  }
  /// of[part][half of the block]
  METAL_FUNC void load(uint t, uint block, thread NarrowRight (&high)[2], thread NarrowRight (&low)[2]) const {
    threadgroup const uint4* at = words + t * 64 + (block * columns * 4 & 31);  // of block % blocks
    tile_load(high[0], high[1], at, columns, lane);
    tile_load(low[0], low[1], at + 32, columns, lane);
  }
  /// Of rows tile_column() and the next: the scales, or the sums of squares.
  METAL_FUNC float scale(uint t, uint block, uint i) const {
    return factors[t * 32 + (block * columns & 7) + tile_column(lane) + i];
  }
  METAL_FUNC float squares(uint t, uint block, uint i) const {
    return factors[t * 32 + 16 + (block * columns & 7) + tile_column(lane) + i];
  }

 private:
  static METAL_FUNC void take(thread float* to, device const float* from) {
    const float4 a = *(device const float4*)from, b = *(device const float4*)(from + (place(4, 0) - place(0, 0)));
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w, to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
  }
};
