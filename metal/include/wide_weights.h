// Rows of W as linear_wide's right operands: kWideStep halves of each of kOutputs rows, in the order of wide_tile.h, by
// kThreads threads; behind them, where a value takes kHalves of two, what is left for a second one. A value is `scale`
// times that, plus `minimum`: both of each block of 32, [2][kOutputs] of scales and then of minima; or, with
// kSixteens, scales of each 16, [4][kOutputs]. What a thread reads for a step it holds until it puts it down.
#pragma once
#include "arranged_super.h"
#include "lift.h"
#include "wide_tile.h"

/// Of any format, by its units.
template <class Format, uint kOutputs, uint kThreads>
struct WideWeights {
  enum : uint { kShares = kOutputs * 8 / kThreads, kHalves = Format::kHalves };
  static constant constexpr bool kScaled = true, kMinimum = Format::kMinimum, kSixteens = false;
  device const uchar* matrix;
  uint first, n, width;

  METAL_FUNC void read(uint, uint) {}
  METAL_FUNC void put(threadgroup uint4* to, threadgroup float* factors, uint step, uint index) {
    const uint piece = index % 8, k = step * kWideStep + piece * 8;
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      const uint row = s * (kThreads / 8) + index / 8;
      float x[8];
      UNROLL
      for (uint i = 0; i < 8; ++i) x[i] = 0.0f;
      Affine of = Affine{0.0f, 0.0f};
      if (k < width) {
        RowOf<Format> from;
        from.begin(matrix, min(first + row, n - 1), n, width);
        of = from.units(k, x);
      }
      if (Format::kScaled) {
        float most = 0.0f;
        UNROLL
        for (uint i = 0; i < 8; ++i) most = fmax(most, abs(x[i]));
        most = fmax(most, simd_shuffle_xor(most, ushort(1)));
        const Lift lift = lift_of(fmax(most, simd_shuffle_xor(most, ushort(2))));
        UNROLL
        for (uint i = 0; i < 8; ++i) x[i] *= lift.up;
        of.scale = lift.down;
      }
      UNROLL
      for (uint part = 0; part < kHalves; ++part) {
        uint words[4];
        UNROLL
        for (uint i = 0; i < 4; ++i) {
          words[i] = two_halves(x[2 * i], x[2 * i + 1]);
          const float2 taken = wide_halves(words[i]);
          x[2 * i] -= taken.x, x[2 * i + 1] -= taken.y;
        }
        to[part * kOutputs * 8 + wide_piece(row, piece)] = uint4(words[0], words[1], words[2], words[3]);
      }
      if (piece % 4 != 0) continue;
      factors[piece / 4 * kOutputs + row] = of.scale;
      if (kMinimum) factors[(2 + piece / 4) * kOutputs + row] = of.minimum;
    }
  }
};

template <uint kOutputs, uint kThreads>
struct WideWeights<F16, kOutputs, kThreads> {
  enum : uint { kShares = kOutputs * 8 / kThreads, kHalves = 1 };
  static constant constexpr bool kScaled = false, kMinimum = false, kSixteens = false;
  device const uchar* matrix;
  uint first, n, width;

  METAL_FUNC void read(uint, uint) {}
  METAL_FUNC void put(threadgroup uint4* to, threadgroup float*, uint step, uint index) {
    const uint piece = index % 8, k = step * kWideStep + piece * 8;
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      const uint row = s * (kThreads / 8) + index / 8;
      const ulong at = ulong(min(first + row, n - 1)) * width + min(k, width - 8);
      copy_later<16>(to + wide_piece(row, piece), (device const uint4*)(matrix + at * 2), k < width);
    }
  }
};

/// Four values of a lane, a byte each, as halves less `bias`, two and two.
METAL_FUNC uint2 wide_bytes(uint four, uint bias) {
  return uint2(halves_less(two_bytes<0>(four), bias), halves_less(two_bytes<2>(four), bias));
}

/// Of the arranged formats: a lane of four has values 4 j .. 4 j + 3 and 16 + 4 j .. of both blocks.
template <class Format>
struct WideCodes;
template <>
struct WideCodes<Q4_0> {
  uint2 words;
  METAL_FUNC void read(device const uchar* codes, uint step, uint j) {
    words = *(device const uint2*)(codes + step / 2 * 1024 + j * 16 + step % 2 * 8);
  }
  /// As halves: two words of the first four, or of the second.
  METAL_FUNC uint2 halves(uint block, uint second) const {
    const uint four = (block == 0 ? words.x : words.y) >> (second * 4) & 0x0f0f0f0fu;
    return wide_bytes(four, 0x64086408u);
  }
};
template <>
struct WideCodes<Q8_0> {
  uint4 words;
  METAL_FUNC void read(device const uchar* codes, uint step, uint j) {
    words = *(device const uint4*)(codes + step * 1024 + j * 16);
  }
  METAL_FUNC uint2 halves(uint block, uint second) const {
    const uint of = block == 0 ? (second == 0 ? words.x : words.y) : second == 0 ? words.z : words.w;
    return wide_bytes(of ^ 0x80808080u, 0x64806480u);
  }
};

template <class Format, uint kOutputs, uint kThreads>
struct WideWeights<Arranged<Format>, kOutputs, kThreads> {
  using Of = Arranged<Format>;
  enum : uint { kShares = kOutputs * 4 / kThreads, kHalves = 1 };
  static constant constexpr bool kScaled = true, kMinimum = false, kSixteens = false;
  device const uchar* matrix;
  uint first, n, width;
  WideCodes<Format> held[kShares];
  uint scales[kShares];

  METAL_FUNC void read(uint step, uint index) {
    const uint j = index % 4;
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      const uint row = min(first + s * (kThreads / 4) + index / 4, n - 1);
      held[s].read(Of::codes(matrix, row, width), step, j);
      scales[s] = 0;
      if (j == 0)
        scales[s] = *(device const uint*)(Of::scales(matrix, row, n, width) + step * 2 / Of::kStep * Of::kScales +
                                          step * 2 % Of::kStep * 2);
    }
  }
  METAL_FUNC void put(threadgroup uint4* to, threadgroup float* factors, uint, uint index) {
    const uint j = index % 4;
    threadgroup uint2* pairs = (threadgroup uint2*)to;
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      const uint row = s * (kThreads / 4) + index / 4;
      UNROLL
      for (uint part = 0; part < 4; ++part)
        pairs[wide_piece(row, part * 2 + j / 2) * 2 + j % 2] = held[s].halves(part / 2, part % 2);
      if (j != 0) continue;
      factors[row] = wide_half(scales[s] & 0xffffu), factors[kOutputs + row] = wide_half(scales[s] >> 16);
    }
  }
};

/// Those of arranged_super.h: a step is a quarter of their blocks.
template <uint kOutputs, uint kThreads>
struct WideWeights<Arranged<Q4_K>, kOutputs, kThreads> {
  using Of = Arranged<Q4_K>;
  enum : uint { kShares = kOutputs * 4 / kThreads, kHalves = 1 };
  static constant constexpr bool kScaled = true, kMinimum = true, kSixteens = false;
  device const uchar* matrix;
  uint first, n, width;
  uint2 held[kShares];
  uint4 behind[kShares];

  METAL_FUNC void read(uint step, uint index) {
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      const uint row = min(first + s * (kThreads / 4) + index / 4, n - 1);
      device const uchar* block = Of::at(matrix, row, step * kWideStep, width);
      held[s] = ((device const uint2*)(block + step % 4 * Of::kQuarter))[row % 16 * 4 + index % 4];
      if (index % 4 < 2) behind[s] = ((device const uint4*)(block + 4 * Of::kQuarter))[row % 16];
    }
  }
  METAL_FUNC void put(threadgroup uint4* to, threadgroup float* factors, uint step, uint index) {
    const uint j = index % 4;
    threadgroup uint2* pairs = (threadgroup uint2*)to;
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      const uint row = s * (kThreads / 4) + index / 4;
      UNROLL
      for (uint part = 0; part < 4; ++part) {
        const uint of = part / 2 == 0 ? held[s].x : held[s].y;
        pairs[wide_piece(row, part * 2 + j / 2) * 2 + j % 2] =
            wide_bytes(of >> (part % 2 * 4) & 0x0f0f0f0fu, 0x64006400u);
      }
      if (j >= 2) continue;
      const Affine of = Of::affine(behind[s], step % 4 * 2 + j);
      factors[j * kOutputs + row] = of.scale, factors[(2 + j) * kOutputs + row] = of.minimum;
    }
  }
};

template <uint kOutputs, uint kThreads>
struct WideWeights<Arranged<Q6_K>, kOutputs, kThreads> {
  using Of = Arranged<Q6_K>;
  enum : uint { kShares = kOutputs * 4 / kThreads, kHalves = 1 };
  static constant constexpr bool kScaled = true, kMinimum = false, kSixteens = true;
  device const uchar* matrix;
  uint first, n, width;
  uint2 held[kShares];
  uint high[kShares];
  float scale[kShares];  // of sixteen number index % 4

  METAL_FUNC void read(uint step, uint index) {
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      const uint row = min(first + s * (kThreads / 4) + index / 4, n - 1), place = row % 16 * 4 + index % 4;
      device const uchar* block = Of::at(matrix, row, step * kWideStep, width);
      device const uchar* quarter = block + step % 4 * Of::kQuarter;
      held[s] = ((device const uint2*)quarter)[place];
      high[s] = ((device const uint*)(quarter + Of::kHigh))[place];
      scale[s] = wide_half(((device const ushort*)(block + 4 * Of::kQuarter))[row % 16]) *
                 float(((device const i8*)(quarter + Of::kScales))[place]);
    }
  }
  METAL_FUNC void put(threadgroup uint4* to, threadgroup float* factors, uint, uint index) {
    const uint j = index % 4;
    threadgroup uint2* pairs = (threadgroup uint2*)to;
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      const uint row = s * (kThreads / 4) + index / 4;
      UNROLL
      for (uint part = 0; part < 4; ++part) {
        const uint low = (part / 2 == 0 ? held[s].x : held[s].y) >> (part % 2 * 4) & 0x0f0f0f0fu;
        const uint two = high[s] >> (part * 4), upper = (two & 0x00030003u) | (two & 0x000c000cu) << 6;
        pairs[wide_piece(row, part * 2 + j / 2) * 2 + j % 2] = wide_bytes(low | upper << 4, 0x64206420u);
      }
      factors[j * kOutputs + row] = scale[s];
    }
  }
};
