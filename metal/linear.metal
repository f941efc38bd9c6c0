// linear: y = x W^T (+ bias) (+ residual). Few rows: a simdgroup for some outputs, its lanes along k, whatever the
// number of rows is. Fused with it, where asked: the rms_norm of x (arXiv:1910.07467), whose scale multiplies the sums,
// and the gate of a feed-forward layer.
#include "kernel.h"
using namespace metal;
#include "formats.h"
#include "gates.h"
#include "linear_steps.h"

constant bool has_bias [[function_constant(0)]];
constant bool has_residual [[function_constant(1)]];
constant bool has_norm [[function_constant(2)]];  // x is divided by its root mean square, and multiplied by `norm`
constant bool has_gate [[function_constant(3)]];  // y = gate(x W^T) * (x up^T)
constant bool gate_is_gelu [[function_constant(4)]];

/// Grid: (groups of kSimdgroups * kOutputs outputs, or of kSimdgroups with a gate; groups of kRows rows). Threads:
/// kSimdgroups * 32.
template <class Format, class Step>
kernel void linear(device const float* in [[buffer(0)]], device const uchar* weight [[buffer(1)]],
                   device const float* bias [[buffer(2)]], device const float* residual [[buffer(3)]],
                   device float* out [[buffer(4)]], constant LinearParams& p [[buffer(5)]],
                   device const float* norm [[buffer(6)]], device const uchar* up [[buffer(7)]],
                   constant float& eps [[buffer(8)]], uint3 group [[threadgroup_position_in_grid]],
                   uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint kSimdgroups = LinearLaunch::kSimdgroups, kOutputs = LinearLaunch::kOutputs;
  constexpr uint kRows = LinearLaunch::kRows;
  const uint first = (group.x * kSimdgroups + simdgroup) * (has_gate ? 1 : kOutputs), row = group.y * kRows;
  const uint rows = min(kRows, p.n_rows - row);
  const ulong stride = row_bytes<Format>(p.in_features);
  device const uchar* rows_of[kOutputs];
  UNROLL
  for (uint o = 0; o < kOutputs; ++o) {  // past the last output: the last one again, and nobody sees it
    const uint output = min(first + (has_gate ? 0 : o), p.out_features - 1);
    rows_of[o] = (has_gate && o == 1 ? up : weight) + ulong(output) * stride;
  }
  float sums[kRows][kOutputs], squares[kRows];
  UNROLL
  for (uint r = 0; r < kRows; ++r) {
    squares[r] = 0.0f;
    UNROLL
    for (uint o = 0; o < kOutputs; ++o) sums[r][o] = 0.0f;
  }
  for (uint k = lane * Step::kStep; k < p.in_features; k += 32 * Step::kStep) {
    float w[kOutputs][Step::kStep];
    UNROLL
    for (uint o = 0; o < kOutputs; ++o) {
      Step::template weights<Format>(rows_of[o], k, w[o]);
      if (!has_norm) continue;
      UNROLL
      for (uint j = 0; j < Step::kStep; ++j) w[o][j] *= norm[k + j];
    }
    UNROLL
    for (uint r = 0; r < kRows; ++r) {
      if (r >= rows) continue;
      device const float* x = in + ulong(row + r) * p.in_features + k;
      UNROLL
      for (uint j = 0; j < Step::kStep; ++j) {
        if (has_norm) squares[r] = fma(x[j], x[j], squares[r]);
        UNROLL
        for (uint o = 0; o < kOutputs; ++o) sums[r][o] = fma(x[j], w[o][j], sums[r][o]);
      }
    }
  }
  UNROLL
  for (uint r = 0; r < kRows; ++r) {
    if (r >= rows) continue;
    float scale = 1.0f, y[kOutputs];
    if (has_norm) scale = 1.0f / precise::sqrt(simd_sum(squares[r]) / float(p.in_features) + eps);
    UNROLL
    for (uint o = 0; o < kOutputs; ++o) {
      y[o] = simd_sum(sums[r][o]);
      if (has_norm) y[o] *= scale;
    }
    if (has_gate) y[0] = (gate_is_gelu ? gated_by<Gelu>(y[0]) : gated_by<Silu>(y[0])) * y[1];
    UNROLL
    for (uint o = 0; o < kOutputs; ++o) {
      if (lane != 0 || first + o >= p.out_features || (has_gate && o != 0)) continue;
      const ulong at = ulong(row + r) * p.out_features + first + o;
      if (has_bias) y[o] += bias[first + o];
      if (has_residual) y[o] += residual[at];
      out[at] = y[o];
    }
  }
}

#define instantiate_linear(name, Name, number, elements, bytes, kind, weight, ...)                                  \
  of_part(name, FOUNDRY_GPU_##weight(instantiate_kernel("linear_" #name, linear, Name, Eight) FOUNDRY_PLAIN_##kind( \
                    instantiate_kernel("linear_" #name "_single", linear, Name, Single))))
FOUNDRY_FORMATS(instantiate_linear)
