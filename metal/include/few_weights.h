// Rows of W as linear_few's left operands: what a lane holds of kBlocks blocks of 32 of a row, and that as halves. Lane
// j of the four that share a row has eight values of a block: with kNeighbours 8 j .. 8 j + 7, two neighbours a word;
// else 4 j .. 4 j + 3 and 16 + 4 j .., in words of every other one: (0, 2), (1, 3). kAhead: steps that are read ahead.
#pragma once
#include "arranged.h"
#include "tile.h"

/// Powers of two: the one that brings `most` to 2^14 .. 2^15, or as near as such go, and the one back. What is not finite
/// stays so.
struct Lift {
  float up, down;
};
METAL_FUNC Lift lift_of(float most) {
  const uint exponent = max(as_type<uint>(most) >> 23 & 255u, 15u);  // biased, and so that neither is subnormal
  return Lift{as_type<float>((127u + 14u + 127u - exponent) << 23), as_type<float>((exponent - 14u) << 23)};
}

/// Of any format, by its units.
template <class Format>
struct FewWeights {
  enum : uint { kBlocks = 1, kAhead = 2, kHalves = Format::kHalves };
  static constant constexpr bool kNeighbours = true, kMinimum = Format::kMinimum;
  struct Held {
    float x[8];
    Affine of;
  };
  static METAL_FUNC void read(thread Held& to, device const uchar* row, uint block, uint j, uint width) {
    UNROLL
    for (uint i = 0; i < 8; ++i) to.x[i] = 0.0f;
    to.of = Affine{0.0f, 0.0f};
    const uint k = block * 32 + j * 8;
    if (k < width) to.of = Format::units(row, k, to.x);
  }
  /// Block b of those held: its values are `of.scale` times those of `high` (and `low`) plus of.minimum.
  static METAL_FUNC Affine halves(thread const Held& from, uint, thread uint* high, thread uint* low) {
    Affine of = from.of;
    float up = 1.0f;
    if (Format::kScaled) {
      float most = 0.0f;
      UNROLL
      for (uint i = 0; i < 8; ++i) most = fmax(most, abs(from.x[i]));
      const Lift lift = lift_of(tile_row_max(most));
      up = lift.up, of.scale = lift.down;
    }
    UNROLL
    for (uint i = 0; i < 4; ++i) {
      const float a = from.x[2 * i] * up, b = from.x[2 * i + 1] * up;
      high[i] = two_halves(a, b);
      if (kHalves == 1) continue;
      const float2 taken = wide_halves(high[i]);
      low[i] = two_halves(a - taken.x, b - taken.y);
    }
    return of;
  }
};

template <>
struct FewWeights<F16> {
  enum : uint { kBlocks = 1, kAhead = 4, kHalves = 1 };
  static constant constexpr bool kNeighbours = true, kMinimum = false;
  struct Held {
    uint4 words;
  };
  static METAL_FUNC void read(thread Held& to, device const uchar* row, uint block, uint j, uint width) {
    to.words = uint4(0, 0, 0, 0);
    const uint k = block * 32 + j * 8;
    if (k < width) to.words = *(device const uint4*)(row + ulong(k) * 2);
  }
  static METAL_FUNC Affine halves(thread const Held& from, uint, thread uint* high, thread uint*) {
    high[0] = from.words.x, high[1] = from.words.y, high[2] = from.words.z, high[3] = from.words.w;
    return Affine{1.0f, 0.0f};
  }
};

/// A half of 1024 to 2047 has a whole number in its low ten bits.
template <>
struct FewWeights<Arranged<Q4_0>> {
  enum : uint { kBlocks = 4, kAhead = 2, kHalves = 1 };
  static constant constexpr bool kNeighbours = false, kMinimum = false;
  struct Held {
    uint4 codes;
    uint2 scales;
  };
  static METAL_FUNC void read(thread Held& to, device const uchar* row, uint block, uint j, uint width) {
    to.codes = uint4(0, 0, 0, 0), to.scales = uint2(0, 0);
    if (block * 32 >= width) return;
    to.codes = Arranged<Q4_0>::codes(row, block, j);
    to.scales = Arranged<Q4_0>::scales(row, block);
  }
  static METAL_FUNC Affine halves(thread const Held& from, uint b, thread uint* high, thread uint*) {
    const uint q = from.codes[int(b)], other = q >> 8;
    high[0] = halves_less(bits_of(q, 0x000f000fu, 0x64006400u), 0x64086408u);      // 1024 + n, less 1032
    high[1] = halves_less(bits_of(other, 0x000f000fu, 0x64006400u), 0x64086408u);  // and 1024 + 16 n, / 16 less 72
    high[2] = halves_times_less(bits_of(q, 0x00f000f0u, 0x64006400u), 0x2c002c00u, 0x54805480u);
    high[3] = halves_times_less(bits_of(other, 0x00f000f0u, 0x64006400u), 0x2c002c00u, 0x54805480u);
    const float2 two = wide_halves(from.scales[int(b / 2)]);
    return Affine{b % 2 == 0 ? two.x : two.y, 0.0f};
  }
};

template <>
struct FewWeights<Arranged<Q8_0>> {
  enum : uint { kBlocks = 2, kAhead = 3, kHalves = 1 };
  static constant constexpr bool kNeighbours = false, kMinimum = false;
  struct Held {
    uint4 codes;
    uint scales;
  };
  static METAL_FUNC void read(thread Held& to, device const uchar* row, uint block, uint j, uint width) {
    to.codes = uint4(0, 0, 0, 0), to.scales = 0;
    if (block * 32 >= width) return;
    to.codes = Arranged<Q8_0>::codes(row, block, j);
    to.scales = Arranged<Q8_0>::scales(row, block);
  }
  static METAL_FUNC Affine halves(thread const Held& from, uint b, thread uint* high, thread uint*) {
    UNROLL
    for (uint i = 0; i < 4; ++i) {
      const uint q = (from.codes[int(2 * b + i / 2)] ^ 0x80808080u) >> (i % 2 * 8);
      high[i] = halves_less(bits_of(q, 0x00ff00ffu, 0x64006400u), 0x64806480u);  // 1024 + 128 + n, less 1152
    }
    const float2 two = wide_halves(from.scales);
    return Affine{b % 2 == 0 ? two.x : two.y, 0.0f};
  }
};
