// Rows of x as linear_few's right operands, kColumns at most: 1, 2, 4 or 8. A block of 32 of a row becomes whole numbers
// times a power of two of its own, 22 bits and a sign: three bytes each; or the sum of two halves. That is done by units,
// a block of a row each, eight at a time: of eight rows' one block, of four rows' two, of one row's eight. What comes of
// a unit does not depend on which are done with it.
#pragma once
#include "few_super.h"

constant constexpr uint kRowsOfTile = LinearFewLaunch::kRows, kSimdgroups = LinearFewLaunch::kSimdgroups;

/// Reads units ahead: the values that a lane, one of four, has of its unit.
template <class Weights, uint kColumns>
struct RowReader {
  device const float* in;  // this lane's part of the first block of its row
  device const float* norm;
  uint width;
  uint next;    // the block of what is held
  uint behind;  // of a lane's unit, in values
  bool is_row;
  float held[8], by[8];

  METAL_FUNC void begin(device const float* x, device const float* norms, uint n_rows, uint in_features, uint first,
                        uint lane) {
    width = in_features, next = first;
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
  /// With the norm's weights, where there is one, and then the sum of squares before; the unit's largest, which is what is
  /// not finite where there is such.
  METAL_FUNC float largest(bool has_norm, thread float& squares) {
    squares = 0.0f;
    uint most = 0;
    if (has_norm) {
      UNROLL
      for (uint i = 0; i < 8; ++i) squares = fma(held[i], held[i], squares), held[i] *= by[i];
      squares += simd_shuffle_xor(squares, ushort(1));
      squares += simd_shuffle_xor(squares, ushort(2));
    }
    UNROLL
    for (uint i = 0; i < 8; ++i) most = max(most, as_type<uint>(held[i]) & 0x7fffffffu);
    most = max(most, simd_shuffle_xor(most, ushort(1)));
    return as_type<float>(max(most, simd_shuffle_xor(most, ushort(2))));
  }
  METAL_FUNC void read_on(bool has_norm) {
    next += 8 / kColumns;
    read(has_norm);
  }

 private:
  static METAL_FUNC void take(thread float* to, device const float* from) {
    const float4 a = *(device const float4*)from, b = *(device const float4*)(from + (place(4, 0) - place(0, 0)));
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w, to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
  }
};

/// What units have one of: scales, sums of squares and sums. Of eight rows each lane keeps its own; of fewer they lie in
/// threadgroup memory, kFactors long.
template <uint kColumns>
struct UnitFactors {
  enum : uint { kScales = 0, kSquares = 16, kSums = 32, kFactors = 48 };
  threadgroup float* room;
  float own[3];
  METAL_FUNC void keep(uint lane, bool has_norm, bool has_sums) {
    if (kColumns == 8 || lane % 4 != 0) return;
    room[kScales + lane / 4] = own[0];
    if (has_norm) room[kSquares + lane / 4] = own[1];
    if (has_sums) room[kSums + lane / 4] = own[2];
  }
  /// Of rows tile_column() and the next. All lanes take part.
  METAL_FUNC float get(uint which, uint block, uint i, uint lane) const {
    const uint column = tile_column(lane) + i;
    if (kColumns == 8) return simd_shuffle(own[which / 16], ushort(column * 4));
    return room[which + block % (8 / kColumns) * kColumns + column];
  }
};

template <class Weights, uint kColumns, bool kBytes>
struct FewRows;

/// As two halves.
template <class Weights, uint kColumns>
struct FewRows<Weights, kColumns, false> {
  enum : uint { kWords = 64, kTogether = 8 / kColumns };  // blocks of eight units
  RowReader<Weights, kColumns> reader;
  UnitFactors<kColumns> factors;
  threadgroup uint4* words;  // kWords of this simdgroup: [two halves][lane]
  uint lane;
  uint4 own_high, own_low;  // of this lane's unit

  /// Makes halves of what is held, and reads on.
  METAL_FUNC void convert(bool has_norm) {
    const Lift lift = lift_of(reader.largest(has_norm, factors.own[1]));
    uint high[4], low[4];
    UNROLL
    for (uint i = 0; i < 4; ++i) {
      const uint at = Weights::kNeighbours ? 2 * i : i / 2 * 4 + i % 2;
      const float a = reader.held[at] * lift.up, b = reader.held[Weights::kNeighbours ? at + 1 : at + 2] * lift.up;
      high[i] = two_halves(a, b);
      const float2 taken = wide_halves(high[i]);
      low[i] = two_halves(a - taken.x, b - taken.y);
    }
    reader.read_on(has_norm);
    own_high = uint4(high[0], high[1], high[2], high[3]), own_low = uint4(low[0], low[1], low[2], low[3]);
    factors.own[0] = lift.down;
    if (kColumns == 8) return;
    simdgroup_barrier(mem_flags::mem_threadgroup);  // the last ones have been read
    words[lane] = own_high, words[32 + lane] = own_low;
    factors.keep(lane, has_norm, false);
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
};

/// As whole numbers. Where a unit has a value that is not finite, its scale is none.
template <class Weights, uint kColumns>
struct FewRows<Weights, kColumns, true> {
  enum : uint { kWords = 48, kTogether = 8 / kColumns };
  RowReader<Weights, kColumns> reader;
  UnitFactors<kColumns> factors;
  threadgroup uint4* words;  // kWords of this simdgroup: of 32 lanes `lower`, then `upper`
  uint lane;
  ByteRight own;

  METAL_FUNC void convert(bool has_norm) {
    const float most = reader.largest(has_norm, factors.own[1]);
    const Lift lift = lift_to<21>(most);
    int whole[8], sum = 0;
    UNROLL
    for (uint i = 0; i < 8; ++i) whole[i] = int(rint(reader.held[i] * lift.up)), sum += whole[i];
    uint first[3], second[3];
    three_bytes(whole[0], whole[1], whole[2], whole[3], first);
    three_bytes(whole[4], whole[5], whole[6], whole[7], second);
    own.lower = uint4(first[0], second[0], first[1], second[1]), own.upper = uint2(first[2], second[2]);
    reader.read_on(has_norm);
    const bool finite = (as_type<uint>(most) & 0x7f800000u) != 0x7f800000u;
    factors.own[0] = finite ? lift.down * Weights::kUnit : as_type<float>(0x7fc00000u);
    if (Weights::kMinimum) {
      sum += simd_shuffle_xor(sum, ushort(1));
      sum += simd_shuffle_xor(sum, ushort(2));
      factors.own[2] = float(sum);
    }
    if (kColumns == 8) return;
    simdgroup_barrier(mem_flags::mem_threadgroup);  // the last ones have been read
    words[lane] = own.lower, ((threadgroup uint2*)(words + 32))[lane] = own.upper;
    factors.keep(lane, has_norm, Weights::kMinimum);
    simdgroup_barrier(mem_flags::mem_threadgroup);
  }
  METAL_FUNC ByteRight load(uint block) const {
    if (kColumns == 8) return own;
    const uint at = block % kTogether * kColumns * 4 + (lane & (4 * kColumns - 1));
    ByteRight right;
    right.lower = words[at], right.upper = ((threadgroup const uint2*)(words + 32))[at];
    return right;
  }
};
