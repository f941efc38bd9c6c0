// linear: y = x W^T (+ bias) (+ residual). Few rows: a simdgroup for some outputs, its lanes along k, whatever the number of rows is.
#include "kernel.h"
using namespace metal;
#include "formats.h"

/// `Eight` reads eight neighbours of k at a time, where rows allow it.
struct Eight {
  static METAL_FUNC uint step() { return 8; }
  template <class Format>
  static METAL_FUNC void weights(device const uchar* row, uint k, thread float* w) {
    Format::eight(row, k, w);
  }
};
struct Single {
  static METAL_FUNC uint step() { return 1; }
  template <class Format>
  static METAL_FUNC void weights(device const uchar* row, uint k, thread float* w) {
    w[0] = Format::value(row, k);
  }
};

/// Grid: (groups of kSimdgroups * kOutputs outputs, groups of kRows rows). Threads: kSimdgroups * 32.
template <class Format, class Step, uint kRows>
kernel void linear(device const float* in [[buffer(0)]], device const uchar* weight [[buffer(1)]],
                   device const float* bias [[buffer(2)]], device const float* residual [[buffer(3)]],
                   device float* out [[buffer(4)]], constant LinearParams& p [[buffer(5)]],
                   constant LinearEpilogue& epilogue [[buffer(6)]], uint3 group [[threadgroup_position_in_grid]],
                   uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint kSimdgroups = 4, kOutputs = 2;
  const uint first = (group.x * kSimdgroups + simdgroup) * kOutputs, row = group.y * kRows;
  const uint rows = min(kRows, p.n_rows - row);
  const ulong row_bytes = Format::bytes(p.in_features);
  float sums[kRows][kOutputs];
  for (uint r = 0; r < kRows; ++r)
    for (uint o = 0; o < kOutputs; ++o) sums[r][o] = 0.0f;
  for (uint k = lane * Step::step(); k < p.in_features; k += 32 * Step::step()) {
    float w[kOutputs][8];
    for (uint o = 0; o < kOutputs; ++o)  // past the last output: the last one again, and nobody sees it
      Step::template weights<Format>(weight + ulong(min(first + o, p.out_features - 1)) * row_bytes, k, w[o]);
    for (uint r = 0; r < rows; ++r) {
      device const float* x = in + ulong(row + r) * p.in_features + k;
      for (uint j = 0; j < Step::step(); ++j)
        for (uint o = 0; o < kOutputs; ++o) sums[r][o] = fma(x[j], w[o][j], sums[r][o]);
    }
  }
  for (uint r = 0; r < rows; ++r)
    for (uint o = 0; o < kOutputs; ++o) {
      float y = simd_sum(sums[r][o]);
      if (lane != 0 || first + o >= p.out_features) continue;
      const ulong at = ulong(row + r) * p.out_features + first + o;
      if (epilogue.has_bias != 0) y += bias[first + o];
      if (epilogue.has_residual != 0) y += residual[at];
      out[at] = y;
    }
}

instantiate_kernel("linear_q4_0", linear, Q4_0, Eight, 4);
instantiate_kernel("linear_q4_1", linear, Q4_1, Eight, 4);
instantiate_kernel("linear_q8_0", linear, Q8_0, Eight, 4);
instantiate_kernel("linear_f32", linear, F32, Eight, 4);
instantiate_kernel("linear_f16", linear, F16, Eight, 4);
instantiate_kernel("linear_bf16", linear, BF16, Eight, 4);
instantiate_kernel("linear_f32_single", linear, F32, Single, 4);
instantiate_kernel("linear_f16_single", linear, F16, Single, 4);
instantiate_kernel("linear_bf16_single", linear, BF16, Single, 4);
