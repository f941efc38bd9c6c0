// Rows of x as linear_few's right operands, kColumns at most: 1, 2, 4 or 8. A block of 32 of a row becomes halves times a
// power of two of its own: the sum of two, 22 bits. That is done by units, a block of a row each, eight at a time: of
// eight rows' one block, of four rows' two, of one row's eight. What comes of a unit does not depend on which are done
// with it.
#pragma once
#include "few_super.h"

constant constexpr uint kRowsOfTile = LinearFewLaunch::kRows, kSimdgroups = LinearFewLaunch::kSimdgroups;

template <class Weights, uint kColumns>
struct FewRows {
  enum : uint { kWords = 64, kFactors = 32, kTogether = 8 / kColumns };  // blocks of eight units
  device const float* in;  // this lane's part of the first block of its row
  device const float* norm;
  threadgroup uint4* words;    // kWords of this simdgroup: [two halves][lane]
  threadgroup float* factors;  // kFactors: 16 scales, 16 sums of squares
  uint width;
  uint next;    // the block of what is held
  uint behind;  // of a lane's unit, in values
  bool is_row;
  uint lane;
  float held[8], by[8];
  uint4 own_high, own_low;  // of this lane's unit
  float own_scale, own_squares;

  METAL_FUNC void begin(device const float* x, device const float* norms, uint n_rows, uint in_features, uint first,
                        uint of_lane) {
    width = in_features, lane = of_lane, next = first;
    const uint unit = lane / 4, row = unit % kColumns;
    behind = unit / kColumns * 32 + place(0, lane % 4);
    is_row = row < n_rows;
    norm = norms + behind, in = x + ulong(row) * width + behind;
  }
  static METAL_FUNC uint place(uint i, uint j) { return Weights::kNeighbours ? j * 8 + i : i / 4 * 16 + j * 4 + i % 4; }
  /// The units that begin at block `next`: zeros behind the last row, and behind its end.
  METAL_FUNC void read(bool has_norm) {
    const uint k = next * 32;
    const bool inside = k + behind < width;
    UNROLL
    for (uint i = 0; i < 8; ++i) held[i] = by[i] = 0.0f;
    if (inside && is_row) take(held, in + k);
    if (has_norm && inside) take(by, norm + k);
  }
  /// Makes halves of what is held, and reads on.
  METAL_FUNC void convert(bool has_norm) {
    float squares = 0.0f, most = 0.0f;
    if (has_norm) {
      UNROLL
      for (uint i = 0; i < 8; ++i) squares = fma(held[i], held[i], squares), held[i] *= by[i];
      squares += simd_shuffle_xor(squares, ushort(1));
      squares += simd_shuffle_xor(squares, ushort(2));
    }
    UNROLL
    for (uint i = 0; i < 8; ++i) most = fmax(most, abs(held[i]));
    most = fmax(most, simd_shuffle_xor(most, ushort(1)));
    most = fmax(most, simd_shuffle_xor(most, ushort(2)));
    const Lift lift = lift_of(most);
    uint high[4], low[4];
    UNROLL
    for (uint i = 0; i < 4; ++i) {
      const uint at = Weights::kNeighbours ? 2 * i : i / 2 * 4 + i % 2;
      const float a = held[at] * lift.up, b = held[Weights::kNeighbours ? at + 1 : at + 2] * lift.up;
      high[i] = two_halves(a, b);
      const float2 taken = wide_halves(high[i]);
      low[i] = two_halves(a - taken.x, b - taken.y);
    }
    next += kTogether;
    read(has_norm);
    own_high = uint4(high[0], high[1], high[2], high[3]), own_low = uint4(low[0], low[1], low[2], low[3]);
    own_scale = lift.down, own_squares = squares;
    if (kColumns == 8) return;
    simdgroup_barrier(mem_flags::mem_threadgroup);  // the last ones have been read
    words[lane] = own_high, words[32 + lane] = own_low;
    if (lane % 4 == 0) factors[lane / 4] = own_scale;
    if (has_norm && lane % 4 == 0) factors[16 + lane / 4] = own_squares;
    simdgroup_barrier(mem_flags::mem_threadgroup);
  }
  /// of[half of the block]. All lanes take part.
  METAL_FUNC void load(uint block, thread NarrowRight (&high)[2], thread NarrowRight (&low)[2]) const {
    if (kColumns == 8) {
      tile_set(high[0], high[1], own_high, words, lane);
      tile_set(low[0], low[1], own_low, words + 32, lane);
    } else {
      threadgroup const uint4* at = words + block % kTogether * kColumns * 4;
      tile_load(high[0], high[1], at, kColumns, lane);
      tile_load(low[0], low[1], at + 32, kColumns, lane);
    }
  }
  /// Of rows tile_column() and the next: the scales, or the sums of squares. All lanes take part.
  METAL_FUNC float scale(uint block, uint i) const { return factor(block, i, own_scale, 0); }
  METAL_FUNC float squares(uint block, uint i) const { return factor(block, i, own_squares, 16); }

 private:
  METAL_FUNC float factor(uint block, uint i, float own, uint from) const {
    const uint column = tile_column(lane) + i;
    if (kColumns == 8) return simd_shuffle(own, ushort(column * 4));
    return factors[from + block % kTogether * kColumns + column];
  }
  static METAL_FUNC void take(thread float* to, device const float* from) {
    const float4 a = *(device const float4*)from, b = *(device const float4*)(from + (place(4, 0) - place(0, 0)));
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w, to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
  }
};
