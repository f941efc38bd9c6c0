// linear_tiles where tiles take halves, and results shall be those of f32 nevertheless: blocks of 32 along k are staged
// as halves times a scale of their own, which multiplies the block's sums:
//   x           a power of two brings the largest value near 2^15, then each is the sum of two halves (22 bits)
//   W in f32    likewise; the product of the two low halves is left out
//   W in bf16   likewise; one half holds it
//   quantised W whole numbers; a minimum multiplies the block's sum of x
#pragma once
#include "linear_blocks.h"

METAL_FUNC uint two_halves_of(float low, float high) {
  return uint(as_type<ushort>(half(low))) | uint(as_type<ushort>(half(high))) << 16;
}

template <class Format>
struct HalfShare : SharedRows<Format> {
  float held[kShares][8];
  Affine of[kShares];

  /// The block at k; zeros behind the row's end.
  METAL_FUNC void read(uint k, uint width, uint index) {
    k += index % 4 * 8;
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      UNROLL
      for (uint i = 0; i < 8; ++i) held[s][i] = 0.0f;
      of[s] = Affine{0.0f, 0.0f};
      if (k < width) of[s] = this->rows[s].units(k, held[s]);
    }
  }
  /// of[].minimum becomes the sum of the block.
  METAL_FUNC void sum_up() {
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      float sum = 0.0f;
      UNROLL
      for (uint i = 0; i < 8; ++i) sum += held[s][i];
      sum += simd_shuffle_xor(sum, ushort(1));
      of[s].minimum = sum + simd_shuffle_xor(sum, ushort(2));
    }
  }
  /// Brings the block's largest to 2^14 .. 2^15, or as near as powers of two go; what is not finite stays so.
  METAL_FUNC void scale_up() {
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      uint most = 0;
      UNROLL
      for (uint i = 0; i < 8; ++i) most = max(most, as_type<uint>(held[s][i]) & 0x7fffffffu);
      most = max(most, simd_shuffle_xor(most, ushort(1)));
      most = max(most, simd_shuffle_xor(most, ushort(2)));
      const uint exponent = max(most >> 23, 15u);  // biased, and so that neither factor is subnormal
      const float up = as_type<float>((127u + 14u + 127u - exponent) << 23);
      UNROLL
      for (uint i = 0; i < 8; ++i) held[s][i] *= up;
      of[s].scale = as_type<float>((exponent - 14u) << 23);
    }
  }
  /// to: [Format::kHalves][kSide][kBlock + 8] halves, eight at a time; scales and minima: [kSide].
  METAL_FUNC void store(threadgroup uint4* to, threadgroup float* scales, threadgroup float* minima, uint index) {
    if (Format::kScaled) scale_up();
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      const uint row = SharedRows<Format>::place(s, index);
      UNROLL
      for (uint part = 0; part < Format::kHalves; ++part) {
        thread float* x = held[s];
        to[(part * kSide + row) * (kBlock / 8 + 1) + index % 4] = uint4(
            two_halves_of(x[0], x[1]), two_halves_of(x[2], x[3]), two_halves_of(x[4], x[5]), two_halves_of(x[6], x[7]));
        UNROLL
        for (uint i = 0; i < 8; ++i) x[i] -= float(half(x[i]));  // what is left for the next
      }
      if (index % 4 == 0) scales[row] = of[s].scale, minima[row] = of[s].minimum;
    }
  }
};

template <class Format>
struct HalfBlocks {
  enum : uint { kParts = Format::kHalves, kStride = kBlock + 8 };
  enum : uint { kWordsX = 2 * kSide * kStride / 8, kWordsW = kParts * kSide * kStride / 8, kFactors = 4 * kSide };
  HalfShare<F32> x;
  HalfShare<Format> w;
  float sums[2][2][8];

  METAL_FUNC void begin(device const float* in, uint first_row, device const uchar* weight, uint first_output,
                        constant LinearParams& p, uint index) {
    UNROLL
    for (uint i = 0; i < 32; ++i) sums[i / 16][i / 8 % 2][i % 8] = 0.0f;
    x.begin((device const uchar*)in, first_row, p.n_rows, p.in_features, index);
    w.begin(weight, first_output, p.out_features, p.in_features, index);
  }
  METAL_FUNC void read(uint k, uint width, uint index) {
    x.read(k, width, index);
    w.read(k, width, index);
  }
  METAL_FUNC void prepare() {
    if (Format::kMinimum) x.sum_up();
  }
  /// factors: scales and sums of x, scales and minima of W, [kSide] each.
  METAL_FUNC void store(threadgroup uint4* to_x, threadgroup uint4* to_w, threadgroup float* factors, uint index) {
    x.store(to_x, factors, factors + kSide, index);
    w.store(to_w, factors + 2 * kSide, factors + 3 * kSide, index);
  }
  METAL_FUNC void multiply(threadgroup const uint4* staged_x, threadgroup const uint4* staged_w,
                           threadgroup const float* factors, Quarter of) {
    threadgroup const half* x_at = (threadgroup const half*)staged_x + of.row * kStride;
    threadgroup const half* w_at = (threadgroup const half*)staged_w + of.output * kStride;
    const float zeros[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    TileSum<16> products[2][2];
    UNROLL
    for (uint t = 0; t < 4; ++t) tile_set(products[t / 2][t % 2], zeros);
    UNROLL
    for (uint t = 0; t < kBlock; t += 16) {
      TileRight<half> right[kParts][2];
      UNROLL
      for (uint part = 0; part < kParts; ++part) {
        UNROLL
        for (uint n = 0; n < 2; ++n)
          tile_load_transposed(right[part][n], w_at + (part * kSide + n * 16) * kStride + t, kStride, of.lane);
      }
      UNROLL
      for (uint m = 0; m < 2; ++m) {
        TileLeft<half, 16> high, low;
        tile_load(high, x_at + m * 16 * kStride + t, kStride, of.lane);
        tile_load(low, x_at + (kSide + m * 16) * kStride + t, kStride, of.lane);
        UNROLL
        for (uint n = 0; n < 2; ++n) {
          tile_multiply_add(products[m][n], low, right[0][n]);
          if (kParts == 2) tile_multiply_add(products[m][n], high, right[kParts - 1][n]);
          tile_multiply_add(products[m][n], high, right[0][n]);
        }
      }
    }
    UNROLL
    for (uint t = 0; t < 4; ++t) add(products[t / 2][t % 2], sums[t / 2][t % 2], factors, of, t / 2 * 16, t % 2 * 16);
  }
  METAL_FUNC void get(uint m, uint n, thread float* y) {
    UNROLL
    for (uint i = 0; i < 8; ++i) y[i] = sums[m][n][i];
  }

 private:
  static METAL_FUNC void add(thread TileSum<16>& products, thread float* to, threadgroup const float* factors,
                             Quarter of, uint m, uint n) {
    float y[8];
    tile_get(products, y);
    UNROLL
    for (uint i = 0; i < 8; ++i) {
      const uint r = of.row + m + tile_row(of.lane) + 8 * (i / 4);
      const uint o = of.output + n + tile_column(of.lane) + 8 * (i / 2 % 2) + i % 2;
      to[i] = fma(y[i] * factors[r], factors[2 * kSide + o], to[i]);
      if (Format::kMinimum) to[i] = fma(factors[kSide + r], factors[3 * kSide + o], to[i]);
    }
  }
};
