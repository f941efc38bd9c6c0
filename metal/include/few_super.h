// linear_few's weights in the order of arranged_super.h: a step is a quarter.
#pragma once
#include "arranged_super.h"
#include "few_weights.h"

template <class Of>
struct FewSuper {
  enum : uint { kBlocks = 2, kPieces = Of::kQuarter / 16, kWords = (Of::kQuarter + Of::kBehind) / 16, kHalves = 1 };
  static constant constexpr bool kNeighbours = false;
  device const uint4* block;
  uint quarter, taken, k, width;

  METAL_FUNC void begin(device const uchar* matrix, uint first, uint n, uint in_features, uint from, uint) {
    k = from * 32, width = in_features, quarter = taken = k / 64 % 4;
    block = (device const uint4*)Of::at(matrix, min(first, n - 16), k, width);
  }
  METAL_FUNC void copy(threadgroup uint4* to, uint lane) {
    UNROLL
    for (uint i = 0; i < (kWords + 31) / 32; ++i) {
      const uint piece = i * 32 + lane;
      if (piece >= kWords) continue;
      copy_later<16>(to + piece, block + (piece < kPieces ? quarter : 3) * kPieces + piece, k < width);
    }
    k += 64, quarter = (quarter + 1) % 4;
    if (quarter == 0) block += Of::kBytes / 16;
  }
  /// What a lane has of row i of its two, and of those behind the quarter.
  static METAL_FUNC uint row_of(uint i, uint lane) { return tile_row(lane) + i * 8; }
  static METAL_FUNC uint place_of(uint i, uint lane) { return row_of(i, lane) * 4 + tile_column(lane) / 2; }
};

template <>
struct FewWeights<Arranged<Q4_K>> : FewSuper<Arranged<Q4_K>> {
  static constant constexpr bool kMinimum = true, kSixteens = false;
  struct Held {
    uint2 codes[2];
    uint4 behind[2];
    uint quarter;
  };
  METAL_FUNC void take(thread Held& to, threadgroup const uint4* from, uint lane) {
    UNROLL
    for (uint i = 0; i < 2; ++i) {
      to.codes[i] = ((threadgroup const uint2*)from)[place_of(i, lane)];
      to.behind[i] = from[kPieces + row_of(i, lane)];
    }
    to.quarter = taken, taken = (taken + 1) % 4;
  }
  static METAL_FUNC float scale_of(thread const Held&, uint, uint, uint) { return 0.0f; }  // with kSixteens alone
  static METAL_FUNC Affine halves(thread const Held& from, uint i, uint b, thread uint* high, thread uint*) {
    const uint q = b == 0 ? from.codes[i].x : from.codes[i].y, other = q >> 8;
    high[0] = halves_less(bits_of(q, 0x000f000fu, 0x64006400u), 0x64006400u);  // 1024 + n, less 1024
    high[1] = halves_less(bits_of(other, 0x000f000fu, 0x64006400u), 0x64006400u);
    high[2] = halves_times_less(bits_of(q, 0x00f000f0u, 0x64006400u), 0x2c002c00u, 0x54005400u);  // / 16 less 64
    high[3] = halves_times_less(bits_of(other, 0x00f000f0u, 0x64006400u), 0x2c002c00u, 0x54005400u);
    return Arranged<Q4_K>::affine(from.behind[i], from.quarter * 2 + b);
  }
};

template <>
struct FewWeights<Arranged<Q6_K>> : FewSuper<Arranged<Q6_K>> {
  static constant constexpr bool kMinimum = false, kSixteens = true;
  struct Held {
    uint2 codes[2];
    uint high[2], scales[2];
    float scale[2];
  };
  METAL_FUNC void take(thread Held& to, threadgroup const uint4* from, uint lane) {
    UNROLL
    for (uint i = 0; i < 2; ++i) {
      to.codes[i] = ((threadgroup const uint2*)from)[place_of(i, lane)];
      to.high[i] = ((threadgroup const uint*)(from + Arranged<Q6_K>::kHigh / 16))[place_of(i, lane)];
      to.scales[i] = ((threadgroup const uint*)(from + Arranged<Q6_K>::kScales / 16))[row_of(i, lane)];
      to.scale[i] = wide_half(((threadgroup const ushort*)(from + kPieces))[row_of(i, lane)]);
    }
  }
  static METAL_FUNC Affine halves(thread const Held& from, uint i, uint b, thread uint* high, thread uint*) {
    const uint q = b == 0 ? from.codes[i].x : from.codes[i].y;
    UNROLL
    for (uint p = 0; p < 4; ++p) {
      const uint low = q >> (p % 2 * 8 + p / 2 * 4), slot = (b * 4 + p) * 2;
      const uint upper = slot < 4 ? from.high[i] << (4 - slot) : from.high[i] >> (slot - 4);
      high[p] = halves_less(bits_of(low, 0x000f000fu, 0x64006400u) | (upper & 0x00300030u), 0x64206420u);
    }
    return Affine{scale_of(from, i, b, 0), 0.0f};
  }
  /// Of half s of block b.
  static METAL_FUNC float scale_of(thread const Held& from, uint i, uint b, uint s) {
    return from.scale[i] * float(int(from.scales[i] << (24 - (b * 2 + s) * 8)) >> 24);
  }
};
