// linear of many rows, y = x W^T (+ bias) (+ residual), with matrix tiles. Tiles take halves, and results shall be those of f32
// nevertheless, so blocks of 32 along k are staged as halves times a scale of their own, which multiplies the block's sums:
//   x           a power of two brings the largest value near 2^15, then each is the sum of two halves (22 bits)
//   W in f32    likewise; the product of the two low halves is left out
//   W in bf16   likewise; one half holds it
//   quantised W whole numbers; a minimum multiplies the block's sum of x
#include "kernel.h"
using namespace metal;
#include "formats.h"
#include "tile.h"

constant bool has_bias [[function_constant(0)]];
constant bool has_residual [[function_constant(1)]];
constant constexpr uint kSide = LinearTilesLaunch::kSide, kThreads = LinearTilesLaunch::kThreads;
constant constexpr uint kBlock = 32, kStride = kBlock + 8, kShares = kSide * 4 / kThreads;

METAL_FUNC uint two_halves_of(float low, float high) {
  return uint(as_type<ushort>(half(low))) | uint(as_type<ushort>(half(high))) << 16;
}

/// What a thread stages of x or W: a quarter of a block, of each of kShares rows. Four neighbours have a whole block.
template <class Format>
struct TileShare {
  device const uchar* rows[kShares];
  float held[kShares][8];
  Affine of[kShares];

  METAL_FUNC void begin(device const uchar* matrix, uint first, uint n, uint width, uint index) {
    for (uint s = 0; s < kShares; ++s)  // past the last row the last one again, and nobody sees it
      rows[s] = matrix + ulong(min(first + place(s, index), n - 1)) * row_bytes<Format>(width);
  }
  static METAL_FUNC uint place(uint s, uint index) { return s * (kThreads / 4) + index / 4; }

  /// The block at k; zeros behind the row's end.
  METAL_FUNC void read(uint k, uint width, uint index) {
    k += index % 4 * 8;
    for (uint s = 0; s < kShares; ++s) {
      for (uint i = 0; i < 8; ++i) held[s][i] = 0.0f;
      of[s] = Affine{0.0f, 0.0f};
      if (k < width) of[s] = Format::units(rows[s], k, held[s]);
    }
  }
  /// of[].minimum becomes the sum of the block.
  METAL_FUNC void sum_up() {
    for (uint s = 0; s < kShares; ++s) {
      float sum = 0.0f;
      for (uint i = 0; i < 8; ++i) sum += held[s][i];
      sum += simd_shuffle_xor(sum, ushort(1));
      of[s].minimum = sum + simd_shuffle_xor(sum, ushort(2));
    }
  }
  /// Brings the block's largest to 2^14 .. 2^15, or as near as powers of two go; what is not finite stays so.
  METAL_FUNC void scale_up() {
    for (uint s = 0; s < kShares; ++s) {
      uint most = 0;
      for (uint i = 0; i < 8; ++i) most = max(most, as_type<uint>(held[s][i]) & 0x7fffffffu);
      most = max(most, simd_shuffle_xor(most, ushort(1)));
      most = max(most, simd_shuffle_xor(most, ushort(2)));
      const uint exponent = max(most >> 23, 15u);  // biased, and so that neither factor is subnormal
      const float up = as_type<float>((127u + 14u + 127u - exponent) << 23);
      for (uint i = 0; i < 8; ++i) held[s][i] *= up;
      of[s].scale = as_type<float>((exponent - 14u) << 23);
    }
  }
  /// to: [Format::kHalves][kSide][kStride]; scales and minima: [kSide].
  METAL_FUNC void store(threadgroup half* to, threadgroup float* scales, threadgroup float* minima, uint index) {
    if (Format::kScaled) scale_up();
    for (uint s = 0; s < kShares; ++s) {
      const uint row = place(s, index);
      for (uint part = 0; part < Format::kHalves; ++part) {
        thread float* x = held[s];
        *(threadgroup uint4*)(to + (part * kSide + row) * kStride + index % 4 * 8) = uint4(
            two_halves_of(x[0], x[1]), two_halves_of(x[2], x[3]), two_halves_of(x[4], x[5]), two_halves_of(x[6], x[7]));
        for (uint i = 0; i < 8; ++i) x[i] -= float(half(x[i]));  // what is left for the next
      }
      if (index % 4 == 0) scales[row] = of[s].scale, minima[row] = of[s].minimum;
    }
  }
};

/// Grid: (groups of kSide outputs, groups of kSide rows). A simdgroup has a quarter: 32 x 32.
template <class Format>
kernel void linear_tiles(device const float* in [[buffer(0)]], device const uchar* weight [[buffer(1)]],
                         device const float* bias [[buffer(2)]], device const float* residual [[buffer(3)]],
                         device float* out [[buffer(4)]], constant LinearParams& p [[buffer(5)]],
                         uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]],
                         uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint kParts = Format::kHalves;
  threadgroup uint4 staged_x[2 * kSide * kStride / 8];
  threadgroup uint4 staged_w[kParts * kSide * kStride / 8];
  threadgroup float x_scales[kSide];
  threadgroup float x_sums[kSide];
  threadgroup float w_scales[kSide];
  threadgroup float w_minima[kSide];
  const uint first_row = group.y * kSide, first_output = group.x * kSide;
  const uint row = simdgroup / 2 * 32, output = simdgroup % 2 * 32;  // of the simdgroup, in the threadgroup's
  const bool busy = first_row + row < p.n_rows && first_output + output < p.out_features;

  float sums[2][2][8];
  const float zeros[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  for (uint m = 0; m < 2; ++m)
    for (uint n = 0; n < 2; ++n)
      for (uint i = 0; i < 8; ++i) sums[m][n][i] = 0.0f;

  TileShare<F32> x;
  TileShare<Format> w;
  x.begin((device const uchar*)in, first_row, p.n_rows, p.in_features, index);
  w.begin(weight, first_output, p.out_features, p.in_features, index);
  x.read(0, p.in_features, index);
  w.read(0, p.in_features, index);
  for (uint k = 0; k < p.in_features; k += kBlock) {
    if (Format::kMinimum) x.sum_up();
    threadgroup_barrier(mem_flags::mem_threadgroup);
    x.store((threadgroup half*)staged_x, x_scales, x_sums, index);
    w.store((threadgroup half*)staged_w, w_scales, w_minima, index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    x.read(k + kBlock, p.in_features, index);  // the next block's reads overlap with this one's products
    w.read(k + kBlock, p.in_features, index);
    if (!busy) continue;

    threadgroup const half* x_at = (threadgroup const half*)staged_x + row * kStride;
    threadgroup const half* w_at = (threadgroup const half*)staged_w + output * kStride;
    TileSum products[2][2];
    for (uint m = 0; m < 2; ++m)
      for (uint n = 0; n < 2; ++n) tile_set(products[m][n], zeros);
    for (uint t = 0; t < kBlock; t += 16) {
      TileRight right[kParts][2];
      for (uint part = 0; part < kParts; ++part)
        for (uint n = 0; n < 2; ++n)
          tile_load_transposed(right[part][n], w_at + (part * kSide + n * 16) * kStride + t, kStride, lane);
      for (uint m = 0; m < 2; ++m) {
        TileLeft high, low;
        tile_load(high, x_at + m * 16 * kStride + t, kStride, lane);
        tile_load(low, x_at + (kSide + m * 16) * kStride + t, kStride, lane);
        for (uint n = 0; n < 2; ++n) {
          tile_multiply_add(products[m][n], low, right[0][n]);
          if (kParts == 2) tile_multiply_add(products[m][n], high, right[kParts - 1][n]);
          tile_multiply_add(products[m][n], high, right[0][n]);
        }
      }
    }
    for (uint m = 0; m < 2; ++m)
      for (uint n = 0; n < 2; ++n) {
        float y[8];
        tile_get(products[m][n], y);
        for (uint i = 0; i < 8; ++i) {
          const uint r = row + m * 16 + tile_row(lane) + 8 * (i / 4);
          const uint o = output + n * 16 + tile_column(lane) + 8 * (i / 2 % 2) + i % 2;
          sums[m][n][i] = fma(y[i] * x_scales[r], w_scales[o], sums[m][n][i]);
          if (Format::kMinimum) sums[m][n][i] = fma(x_sums[r], w_minima[o], sums[m][n][i]);
        }
      }
  }

  for (uint m = 0; m < 2; ++m)
    for (uint n = 0; n < 2; ++n)
      for (uint i = 0; i < 8; ++i) {
        const uint r = first_row + row + m * 16 + tile_row(lane) + 8 * (i / 4);
        const uint o = first_output + output + n * 16 + tile_column(lane) + 8 * (i / 2 % 2) + i % 2;
        if (r >= p.n_rows || o >= p.out_features) continue;
        const ulong at = ulong(r) * p.out_features + o;
        float y = sums[m][n][i];
        if (has_bias) y += bias[o];
        if (has_residual) y += residual[at];
        out[at] = y;
      }
}

#define instantiate_linear_tiles(name, Name, number, elements, bytes, kind, weight, ...) \
  FOUNDRY_GPU_##weight(instantiate_kernel("linear_tiles_" #name, linear_tiles, Name))
FOUNDRY_FORMATS(instantiate_linear_tiles)
