// Rows of W as linear_few's left operands, 16 of them. Lane j of the four that share a row has eight values of a block
// of 32: with kNeighbours 8 j .. 8 j + 7, else 4 j .. 4 j + 3 and 16 + 4 j ... They are halves, two a word, or with
// kBytes whole numbers of kUnit, four a word. kBlocks of them go into kWords of threadgroup memory by copies that end
// later, and are held then; where kWords is 0 they are read as they are wanted. With kSixteens the halves of a block have
// a scale each.
#pragma once
#include "arranged.h"
#include "lift.h"
#include "tile.h"

/// Of any format, by its units.
template <class Format>
struct FewWeights {
  enum : uint { kBlocks = 1, kWords = 0, kHalves = Format::kHalves };
  static constant constexpr bool kNeighbours = true, kMinimum = Format::kMinimum, kBytes = false;
  struct Held {
    float x[2][8];
    Affine of[2];
  };
  RowOf<Format> rows[2];
  uint k, end;

  /// Of 16 outputs from `first` on, from block `block` on, and none from block `last` on. Past the last output the last one again, and nobody sees it.
  METAL_FUNC void begin(device const uchar* matrix, uint first, uint n, uint in_features, uint block, uint last,
                        uint lane) {
    UNROLL
    for (uint i = 0; i < 2; ++i) rows[i].begin(matrix, min(first + tile_row(lane) + i * 8, n - 1), n, in_features);
    k = block * 32 + tile_column(lane) / 2 * 8, end = min(last * 32, in_features);
  }
  /// The next step, and on.
  METAL_FUNC void copy(threadgroup uint4*, uint) {}
  METAL_FUNC void take(thread Held& to, threadgroup const uint4*, uint) {
    UNROLL
    for (uint i = 0; i < 2; ++i) {
      UNROLL
      for (uint e = 0; e < 8; ++e) to.x[i][e] = 0.0f;
      to.of[i] = Affine{0.0f, 0.0f};
      if (k < end) to.of[i] = rows[i].units(k, to.x[i]);
    }
    k += 32;
  }
  /// Block b of row i of those held: its values are `scale` times those of `high` (and `low`) plus `minimum`.
  static METAL_FUNC Affine halves(thread const Held& from, uint i, uint, thread uint* high, thread uint* low) {
    thread const float* x = from.x[i];
    Affine of = from.of[i];
    float up = 1.0f;
    if (Format::kScaled) {
      float most = 0.0f;
      UNROLL
      for (uint e = 0; e < 8; ++e) most = fmax(most, abs(x[e]));
      const Lift lift = lift_of(tile_row_max(most));
      up = lift.up, of.scale = lift.down;
    }
    UNROLL
    for (uint e = 0; e < 4; ++e) {
      const float a = x[2 * e] * up, b = x[2 * e + 1] * up;
      high[e] = two_halves(a, b);
      if (kHalves == 1) continue;
      const float2 taken = wide_halves(high[e]);
      low[e] = two_halves(a - taken.x, b - taken.y);
    }
    return of;
  }
};

template <>
struct FewWeights<F16> {
  enum : uint { kBlocks = 1, kWords = 64, kHalves = 1 };
  static constant constexpr bool kNeighbours = true, kMinimum = false, kBytes = false;
  struct Held {
    uint4 words[2];
  };
  device const uint4* next[2];
  uint k, end;

  METAL_FUNC void begin(device const uchar* matrix, uint first, uint n, uint in_features, uint block, uint last,
                        uint lane) {
    k = block * 32 + tile_column(lane) / 2 * 8, end = min(last * 32, in_features);
    UNROLL
    for (uint i = 0; i < 2; ++i)
      next[i] =
          (device const uint4*)(matrix + (ulong(min(first + tile_row(lane) + i * 8, n - 1)) * in_features + k) * 2);
  }
  METAL_FUNC void copy(threadgroup uint4* to, uint lane) {
    UNROLL
    for (uint i = 0; i < 2; ++i) {
      copy_later<16>(to + i * 32 + lane, next[i], k < end);
      next[i] += 4;
    }
    k += 32;
  }
  static METAL_FUNC void take(thread Held& to, threadgroup const uint4* from, uint lane) {
    UNROLL
    for (uint i = 0; i < 2; ++i) to.words[i] = from[i * 32 + lane];
  }
  static METAL_FUNC Affine halves(thread const Held& from, uint i, uint, thread uint* high, thread uint*) {
    high[0] = from.words[i].x, high[1] = from.words[i].y, high[2] = from.words[i].z, high[3] = from.words[i].w;
    return Affine{1.0f, 0.0f};
  }
};

/// Scales: those of a step of a row.
template <class Format, class Scales>
struct FewArranged {
  enum : uint { kBlocks = Format::kStep, kWords = 64 + sizeof(Scales) };
  static constant constexpr bool kNeighbours = false, kMinimum = false, kBytes = true, kSixteens = false;
  struct Held {
    uint4 codes[2];
    Scales scales[2];
  };
  device const uint4* codes;
  device const Scales* scales;  // of the first 16 lanes
  uint k, end;

  METAL_FUNC void begin(device const uchar* matrix, uint first, uint n, uint in_features, uint block, uint last,
                        uint lane) {
    first = min(first, n - 16), k = block * 32, end = min(last * 32, in_features);
    const ulong step = block / kBlocks;
    codes = (device const uint4*)(Format::codes(matrix, first, in_features) + step * Format::kCodes) + lane_of(lane);
    scales = (device const Scales*)(Format::scales(matrix, first, n, in_features) + step * Format::kScales) + lane % 16;
  }
  METAL_FUNC void copy(threadgroup uint4* to, uint lane) {
    const bool inside = k < end;
    UNROLL
    for (uint i = 0; i < 2; ++i) copy_later<16>(to + i * 32 + lane, codes + i * 32, inside);
    if (lane < 16) copy_later<sizeof(Scales)>((threadgroup Scales*)(to + 64) + lane, scales, inside);
    codes += Format::kCodes / 16, scales += 16, k += kBlocks * 32;
  }
  static METAL_FUNC void take(thread Held& to, threadgroup const uint4* from, uint lane) {
    UNROLL
    for (uint i = 0; i < 2; ++i) {
      to.codes[i] = from[i * 32 + lane];
      to.scales[i] = ((threadgroup const Scales*)(from + 64))[tile_row(lane) + i * 8];
    }
  }
  static METAL_FUNC float scale_of(thread const Held&, uint, uint, uint) { return 0.0f; }  // with kSixteens alone

 private:
  /// Four lanes have a row.
  static METAL_FUNC uint lane_of(uint lane) { return tile_row(lane) * 4 + tile_column(lane) / 2; }
};

/// A nibble is a byte's upper four bits, which are sixteen times n - 8.
template <>
struct FewWeights<Arranged<Q4_0>> : FewArranged<Arranged<Q4_0>, uint2> {
  static constant constexpr float kUnit = 0.0625f;
  static METAL_FUNC Affine bytes(thread const Held& from, uint i, uint b, thread uint& first, thread uint& second) {
    const uint q = from.codes[i][int(b)];
    first = (q << 4 & 0xf0f0f0f0u) ^ 0x80808080u;
    second = (q & 0xf0f0f0f0u) ^ 0x80808080u;
    const float2 two = wide_halves(from.scales[i][int(b / 2)]);
    return Affine{b % 2 == 0 ? two.x : two.y, 0.0f};
  }
};

template <>
struct FewWeights<Arranged<Q8_0>> : FewArranged<Arranged<Q8_0>, uint> {
  static constant constexpr float kUnit = 1.0f;
  static METAL_FUNC Affine bytes(thread const Held& from, uint i, uint b, thread uint& first, thread uint& second) {
    first = from.codes[i][int(2 * b)], second = from.codes[i][int(2 * b + 1)];
    const float2 two = wide_halves(from.scales[i]);
    return Affine{b % 2 == 0 ? two.x : two.y, 0.0f};
  }
};
