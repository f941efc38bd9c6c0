// linear_few's weights in the order of arranged_super.h: a step is a quarter.
#pragma once
#include "arranged_super.h"
#include "few_weights.h"

template <class Of>
struct FewSuper {
  enum : uint { kBlocks = 2, kPieces = Of::kQuarter / 16, kWords = (Of::kQuarter + Of::kBehind) / 16 };
  static constant constexpr bool kNeighbours = false, kBytes = true;
  device const uint4* block;
  uint quarter, taken, k, end;

  METAL_FUNC void begin(device const uchar* matrix, uint first, uint n, uint in_features, uint from, uint last, uint) {
    k = from * 32, end = min(last * 32, in_features), quarter = taken = k / 64 % 4;
    block = (device const uint4*)Of::at(matrix, min(first, n - 16), k, in_features);
  }
  METAL_FUNC void copy(threadgroup uint4* to, uint lane) {
    UNROLL
    for (uint i = 0; i < (kWords + 31) / 32; ++i) {
      const uint piece = i * 32 + lane;
      if (piece >= kWords) continue;
      copy_later<16>(to + piece, block + (piece < kPieces ? quarter : 3) * kPieces + piece, k < end);
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
  static constant constexpr float kUnit = 1.0f;
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
  static METAL_FUNC Affine bytes(thread const Held& from, uint i, uint b, thread uint& first, thread uint& second) {
    const uint q = b == 0 ? from.codes[i].x : from.codes[i].y;
    first = q & 0x0f0f0f0fu, second = q >> 4 & 0x0f0f0f0fu;
    return Arranged<Q4_K>::affine(from.behind[i], from.quarter * 2 + b);
  }
};

template <>
struct FewWeights<Arranged<Q6_K>> : FewSuper<Arranged<Q6_K>> {
  static constant constexpr bool kMinimum = false, kSixteens = true;
  static constant constexpr float kUnit = 0.25f;
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
  /// Six bits are a byte's upper ones, which are four times n - 32.
  static METAL_FUNC Affine bytes(thread const Held& from, uint i, uint b, thread uint& first, thread uint& second) {
    const uint q = b == 0 ? from.codes[i].x : from.codes[i].y, high = from.high[i] >> (b * 8);
    first = ((q << 2 & 0x3c3c3c3cu) | upper_of(high)) ^ 0x80808080u;
    second = ((q >> 2 & 0x3c3c3c3cu) | upper_of(high >> 4)) ^ 0x80808080u;
    return Affine{scale_of(from, i, b, 0), 0.0f};
  }
  /// The upper two bits of v0 .. v3, each in its byte.
  static METAL_FUNC uint upper_of(uint high) { return (high << 6 & 0x00c000c0u) | (high << 12 & 0xc000c000u); }
  /// Of half s of block b.
  static METAL_FUNC float scale_of(thread const Held& from, uint i, uint b, uint s) {
    return from.scale[i] * float(int(from.scales[i] << (24 - (b * 2 + s) * 8)) >> 24);
  }
};
