// Weights in an order of their own (arranged.h), of formats whose blocks are of 256. Sixteen rows' blocks lie together: four
// quarters, of 64 of k each, and behind them what a row has once. In a quarter's codes lane j of the four that share a row
// has of each of two blocks of 32 values 4 j .. 4 j + 3 and 16 + 4 j .. 16 + 4 j + 3: its v0 .. v7.
//   q4_k   [row of 16][lane][block] words, whose bytes are v0 | v4 << 4, v1 | v5 << 4, ..; behind, the file's 16 bytes in
//          front of a block's codes, a row
//   q6_k   the same of the low four bits; [row of 16][lane] words of the upper two, of (v0, v2), (v1, v3), (v4, v6) and
//          (v5, v7), of the first block and then of the second, from bits 0 and 16 on; [row of 16][4] scales; behind, the
//          scale of scales, a row
// As many bytes as in the file. The host arranges them (cpp/device/gpu/arrange_super.cpp).
#pragma once
#include "arranged.h"
#include "tile.h"

/// kQuarter and kBehind: bytes.
template <uint kQuarterBytes, uint kBehindBytes>
struct InSuperBlocks {
  enum : uint { kQuarter = kQuarterBytes, kBehind = kBehindBytes, kBytes = 4 * kQuarter + kBehind };
  static METAL_FUNC device const uchar* at(device const uchar* matrix, uint row, uint k, uint width) {
    return matrix + (ulong(row / 16) * (width / 256) + k / 256) * kBytes;
  }
};

template <>
struct Arranged<Q4_K> : InSuperBlocks<512, 256> {
  static constant constexpr uint kHalves = 1;
  static constant constexpr bool kScaled = false, kMinimum = true;
  /// Of group g of 32, of a row's 16 bytes behind.
  static METAL_FUNC Affine affine(uint4 of, uint g) {
    const uint y = of.y >> (g % 4 * 8), z = of.z >> (g % 4 * 8), w = of.w >> (g % 4 * 8);
    const uint scale = g < 4 ? y & 63u : (w & 15u) | (y >> 6 & 3u) << 4;
    const uint minimum = g < 4 ? z & 63u : (w >> 4 & 15u) | (z >> 6 & 3u) << 4;
    const float2 both = wide_halves(of.x);
    return Affine{both.x * float(scale), -(both.y * float(minimum))};
  }
};

template <>
struct Arranged<Q6_K> : InSuperBlocks<832, 32> {
  static constant constexpr uint kHalves = 2;  // of scaled values; products by sixteens need one
  static constant constexpr bool kScaled = true, kMinimum = false;
  enum : uint { kHigh = 512, kScales = 768 };  // in a quarter
};

template <>
struct RowOf<Arranged<Q4_K>> {
  using Of = Arranged<Q4_K>;
  device const uchar* blocks;
  uint row;
  METAL_FUNC void begin(device const uchar* matrix, uint index, uint, uint width) {
    blocks = Of::at(matrix, index, 0, width), row = index % 16;
  }
  METAL_FUNC Affine units(uint i, thread float* x) const {
    device const uchar* block = blocks + i / 256 * Of::kBytes;
    device const uint* words = (device const uint*)(block + i / 64 % 4 * Of::kQuarter) + row * 8 + i / 32 % 2;
    UNROLL
    for (uint e = 0; e < 8; ++e) x[e] = float(words[(i % 16 / 4 + e / 4) * 2] >> (i % 32 / 16 * 4 + e % 4 * 8) & 15u);
    return Of::affine(((device const uint4*)(block + 4 * Of::kQuarter))[row], i / 32 % 8);
  }
  METAL_FUNC void eight(uint i, thread float* x) const {
    const Affine of = units(i, x);
    UNROLL
    for (uint e = 0; e < 8; ++e) x[e] = of.scale * x[e] + of.minimum;
  }
};

template <>
struct RowOf<Arranged<Q6_K>> {
  using Of = Arranged<Q6_K>;
  device const uchar* blocks;
  uint row;
  METAL_FUNC void begin(device const uchar* matrix, uint index, uint, uint width) {
    blocks = Of::at(matrix, index, 0, width), row = index % 16;
  }
  METAL_FUNC void eight(uint i, thread float* x) const {
    device const uchar* block = blocks + i / 256 * Of::kBytes;
    device const uchar* quarter = block + i / 64 % 4 * Of::kQuarter;
    device const uint* words = (device const uint*)quarter + row * 8 + i / 32 % 2;
    device const uint* highs = (device const uint*)(quarter + Of::kHigh) + row * 4;
    const float scale = wide_half(((device const ushort*)(block + 4 * Of::kQuarter))[row]) *
                        float(((device const i8*)(quarter + Of::kScales))[row * 4 + i % 64 / 16]);
    UNROLL
    for (uint e = 0; e < 8; ++e) {
      const uint j = i % 16 / 4 + e / 4, second = i % 32 / 16, slot = i / 32 % 2 * 4 + second * 2 + e % 2;
      const uint high = highs[j] >> (slot * 2 + e % 4 / 2 * 16) & 3u;
      x[e] = scale * float(int((words[j * 2] >> (second * 4 + e % 4 * 8) & 15u) | high << 4) - 32);
    }
  }
  METAL_FUNC Affine units(uint i, thread float* x) const {
    eight(i, x);
    return Affine{1.0f, 0.0f};
  }
};
