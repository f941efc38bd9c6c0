// linear_tiles where tiles take floats: x and W are staged as f32, their products are those of f32, and the sums stay
// in the tiles.
#pragma once
#include "linear_blocks.h"

template <class Format>
struct FloatShare : SharedRows<Format> {
  float held[kShares][8];

  /// The block at k; zeros behind the row's end.
  METAL_FUNC void read(uint k, uint width, uint index) {
    k += index % 4 * 8;
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      UNROLL
      for (uint i = 0; i < 8; ++i) held[s][i] = 0.0f;
      if (k < width) this->rows[s].eight(k, held[s]);
    }
  }
  /// to: [kSide][kBlock + 4] floats, four at a time.
  METAL_FUNC void store(threadgroup uint4* to, uint index) const {
    UNROLL
    for (uint s = 0; s < kShares; ++s) {
      threadgroup uint4* at = to + SharedRows<Format>::place(s, index) * (kBlock / 4 + 1) + index % 4 * 2;
      UNROLL
      for (uint i = 0; i < 2; ++i)
        at[i] = uint4(as_type<uint>(held[s][4 * i]), as_type<uint>(held[s][4 * i + 1]),
                      as_type<uint>(held[s][4 * i + 2]), as_type<uint>(held[s][4 * i + 3]));
    }
  }
};

template <class Format>
struct FloatBlocks {
  enum : uint { kStride = kBlock + 4, kWordsX = kSide * kStride / 4, kWordsW = kWordsX, kFactors = 1 };
  FloatShare<F32> x;
  FloatShare<Format> w;
  TileSum<16> sums[2][2];

  METAL_FUNC void begin(device const float* in, uint first_row, device const uchar* weight, uint first_output,
                        constant LinearParams& p, uint index) {
    const float zeros[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    UNROLL
    for (uint t = 0; t < 4; ++t) tile_set(sums[t / 2][t % 2], zeros);
    x.begin((device const uchar*)in, first_row, p.n_rows, p.in_features, index);
    w.begin(weight, first_output, p.out_features, p.in_features, index);
  }
  METAL_FUNC void read(uint k, uint width, uint index) {
    x.read(k, width, index);
    w.read(k, width, index);
  }
  METAL_FUNC void prepare() {}
  METAL_FUNC void store(threadgroup uint4* to_x, threadgroup uint4* to_w, threadgroup float*, uint index) const {
    x.store(to_x, index);
    w.store(to_w, index);
  }
  METAL_FUNC void multiply(threadgroup const uint4* staged_x, threadgroup const uint4* staged_w,
                           threadgroup const float*, Quarter of) {
    threadgroup const float* x_at = (threadgroup const float*)staged_x + of.row * kStride;
    threadgroup const float* w_at = (threadgroup const float*)staged_w + of.output * kStride;
    UNROLL
    for (uint t = 0; t < kBlock; t += 16) {
      TileRight<float> right[2];
      UNROLL
      for (uint n = 0; n < 2; ++n) tile_load_transposed(right[n], w_at + n * 16 * kStride + t, kStride, of.lane);
      UNROLL
      for (uint m = 0; m < 2; ++m) {
        TileLeft<float, 16> left;
        tile_load(left, x_at + m * 16 * kStride + t, kStride, of.lane);
        UNROLL
        for (uint n = 0; n < 2; ++n) tile_multiply_add(sums[m][n], left, right[n]);
      }
    }
  }
  METAL_FUNC void get(uint m, uint n, thread float* y) { tile_get(sums[m][n], y); }
};
