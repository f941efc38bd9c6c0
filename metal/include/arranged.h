// Weights in an order of their own, for GPUs with memory of their own (gpu_weight.h): of formats whose blocks are no
// whole number of 16 bytes, where rows are whole bundles of kBundle values. A bundle is eight blocks of a row, and as
// long as they: their scales, then their codes, so that each of four lanes has its share of several blocks in 16 bytes:
//   q4_0   scale[8], then nibbles [half of the blocks][lane j][block of four][4]: 4 j .. 4 j + 3 of the block's
//   q8_0   scale[8], then values [fourth of the blocks][lane j][block of two][2][4]: 4 j .. of the block's, and 16 + 4 j
// The host arranges them (cpp/device/gpu/arrange.cpp).
#pragma once
#include "formats.h"

constant constexpr uint kBundle = 256;

template <class Format>
struct Arranged;

/// What is said of both.
template <class Of>
struct Bundled {
  static constant constexpr uint kHalves = 1;
  static constant constexpr bool kScaled = false, kMinimum = false;
  static METAL_FUNC device const uchar* bundle(device const uchar* row, uint block) {
    return row + ulong(block / 8) * Of::kBytes;
  }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    const Affine of = Of::units(row, i, x);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = of.scale * x[j];
  }
};

template <>
struct Arranged<Q4_0> : Bundled<Arranged<Q4_0>> {
  static constant constexpr ulong kBytes = 144;

  /// Those of lane j, of four blocks from `block` on.
  static METAL_FUNC uint4 codes(device const uchar* row, uint block, uint j) {
    return *(device const uint4*)(Arranged::bundle(row, block) + 16 + block % 8 / 4 * 64 + j * 16);
  }
  static METAL_FUNC uint2 scales(device const uchar* row, uint block) {
    return *(device const uint2*)(Arranged::bundle(row, block) + block % 8 * 2);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    device const uchar* of = Arranged::bundle(row, i / 32);
    const uint block = i / 32 % 8, shift = i % 32 < 16 ? 0u : 4u;
    device const uint* codes = (device const uint*)(of + 16 + block / 4 * 64 + i % 16 / 4 * 16 + block % 4 * 4);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = float(int(codes[j / 4 * 4] >> (shift + j % 4 * 8) & 15u) - 8);
    return Affine{wide_half(((device const ushort*)of)[block]), 0.0f};
  }
};

template <>
struct Arranged<Q8_0> : Bundled<Arranged<Q8_0>> {
  static constant constexpr ulong kBytes = 272;

  /// Those of lane j, of two blocks from `block` on.
  static METAL_FUNC uint4 codes(device const uchar* row, uint block, uint j) {
    return *(device const uint4*)(Arranged::bundle(row, block) + 16 + block % 8 / 2 * 64 + j * 16);
  }
  static METAL_FUNC uint scales(device const uchar* row, uint block) {
    return *(device const uint*)(Arranged::bundle(row, block) + block % 8 * 2);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    device const uchar* of = Arranged::bundle(row, i / 32);
    const uint block = i / 32 % 8;
    device const uint* codes = (device const uint*)(of + 16 + block / 2 * 64 + i % 16 / 4 * 16 + block % 2 * 8);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = float(int(codes[i % 32 / 16 + j / 4 * 4] << (24 - j % 4 * 8)) >> 24);
    return Affine{wide_half(((device const ushort*)of)[block]), 0.0f};
  }
};

template <>
struct BlockOf<Arranged<Q4_0>> {
  static constant constexpr uint kElements = kBundle;
  static constant constexpr ulong kBytes = Arranged<Q4_0>::kBytes;
};
template <>
struct BlockOf<Arranged<Q8_0>> {
  static constant constexpr uint kElements = kBundle;
  static constant constexpr ulong kBytes = Arranged<Q8_0>::kBytes;
};
