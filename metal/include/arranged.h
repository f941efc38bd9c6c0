// Weights in an order of their own, for GPUs with memory of their own (gpu_weight.h), of formats whose blocks are no whole
// number of 16 bytes. Sixteen rows lie together, and of these kStep blocks, so that a simdgroup reads 1024 bytes in a row
// and each lane 16 of them: codes [rows / 16][k / (32 kStep)][row of 16][lane j of four][...], where the lane's are
//   q4_0   of four blocks nibbles 4 j .. 4 j + 3
//   q8_0   of two blocks values 4 j .. 4 j + 3 and 16 + 4 j .. 16 + 4 j + 3
// Behind all codes lie the scales, [rows / 16][k / (32 kStep)][row of 16][kStep]. As many bytes as in the file. The host
// arranges them (cpp/device/gpu/arrange.cpp).
#pragma once
#include "formats.h"

template <class Format>
struct Arranged;

template <uint kBlocks>
struct InSteps {
  static constant constexpr uint kStep = kBlocks, kHalves = 1;
  static constant constexpr bool kScaled = false, kMinimum = false;

  /// Of a row's steps the first one's codes, and scales.
  static METAL_FUNC device const uchar* codes(device const uchar* matrix, uint row, uint width) {
    return matrix + ulong(row / 16) * (width / (32 * kStep)) * 1024 + row % 16 * 64;
  }
  static METAL_FUNC device const uchar* scales(device const uchar* matrix, uint row, uint rows, uint width) {
    const ulong steps = width / (32 * kStep);
    return matrix + rows / 16 * steps * 1024 + (row / 16 * steps * 16 + row % 16) * (2 * kStep);
  }
  /// Bytes from a step to the next.
  enum : uint { kCodes = 1024, kScales = 32 * kStep };
};

template <>
struct Arranged<Q4_0> : InSteps<4> {
  static METAL_FUNC void code(device const uchar* codes, uint i, thread float* x) {
    const uint shift = i % 32 < 16 ? 0u : 4u;
    device const uint* at = (device const uint*)(codes + i / 128 * 1024 + i % 16 / 4 * 16 + i / 32 % 4 * 4);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = float(int(at[j / 4 * 4] >> (shift + j % 4 * 8) & 15u) - 8);
  }
};

template <>
struct Arranged<Q8_0> : InSteps<2> {
  static METAL_FUNC void code(device const uchar* codes, uint i, thread float* x) {
    device const uint* at =
        (device const uint*)(codes + i / 64 * 1024 + i % 16 / 4 * 16 + i / 32 % 2 * 8 + i % 32 / 16 * 4);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = float(int(at[j / 4 * 4] << (24 - j % 4 * 8)) >> 24);
  }
};

/// Where a row of W is, of any format: `units` and `eight` are those of formats.h.
template <class Format>
struct RowOf {
  device const uchar* row;
  METAL_FUNC void begin(device const uchar* matrix, uint index, uint, uint width) {
    row = matrix + ulong(index) * row_bytes<Format>(width);
  }
  METAL_FUNC Affine units(uint i, thread float* x) const { return Format::units(row, i, x); }
  METAL_FUNC void eight(uint i, thread float* x) const { Format::eight(row, i, x); }
};
template <class Format>
struct RowOf<Arranged<Format>> {
  using Of = Arranged<Format>;
  device const uchar* codes;
  device const uchar* scales;
  METAL_FUNC void begin(device const uchar* matrix, uint index, uint n, uint width) {
    codes = Of::codes(matrix, index, width), scales = Of::scales(matrix, index, n, width);
  }
  METAL_FUNC Affine units(uint i, thread float* x) const {
    Of::code(codes, i, x);
    const uint step = i / (32 * Of::kStep), block = i / 32 % Of::kStep;
    return Affine{wide_half(*(device const ushort*)(scales + step * Of::kScales + block * 2)), 0.0f};
  }
  METAL_FUNC void eight(uint i, thread float* x) const {
    const Affine of = units(i, x);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = of.scale * x[j];
  }
};
