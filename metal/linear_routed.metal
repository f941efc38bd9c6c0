// linear_routed: y = x W_e^T (+ bias_e) for each expert e that a row has chosen; and sum_routed, what comes of a row.
// A part is one expert's place in a row, and a threadgroup's own: each is summed as linear.metal sums a row, so it has
// the same bits whoever else is in the step. The host does not know the choice; what nobody chose is not read.
#include "kernel.h"
using namespace metal;
#include "formats.h"
#include "linear_steps.h"

constant bool has_bias [[function_constant(0)]];

/// Grid: (parts, groups of kSimdgroups * kOutputs outputs). Threads: kSimdgroups * 32.
template <class Format, class Step>
kernel void linear_routed(device const float* in [[buffer(0)]], device const uchar* weight [[buffer(1)]],
                          device const float* bias [[buffer(2)]], device const int* chosen [[buffer(3)]],
                          device float* out [[buffer(4)]], constant LinearRoutedParams& p [[buffer(5)]],
                          uint3 group [[threadgroup_position_in_grid]],
                          uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint kSimdgroups = LinearRoutedLaunch::kSimdgroups, kOutputs = LinearRoutedLaunch::kOutputs;
  const uint part = group.x, first = (group.y * kSimdgroups + simdgroup) * kOutputs;
  const ulong matrix = ulong(uint(chosen[part])) * p.out_features;  // its first row
  const ulong stride = row_bytes<Format>(p.in_features);
  device const float* x = in + ulong(p.in_parts == 1 ? part / p.n_used : part) * p.in_features;
  device const uchar* rows_of[kOutputs];
  float sums[kOutputs];
  UNROLL
  for (uint o = 0; o < kOutputs; ++o) {  // past the last output: the last one again, and nobody sees it
    rows_of[o] = weight + (matrix + min(first + o, p.out_features - 1)) * stride;
    sums[o] = 0.0f;
  }
  for (uint k = lane * Step::kStep; k < p.in_features; k += 32 * Step::kStep) {
    float w[kOutputs][Step::kStep];
    UNROLL
    for (uint o = 0; o < kOutputs; ++o) Step::template weights<Format>(rows_of[o], k, w[o]);
    UNROLL
    for (uint j = 0; j < Step::kStep; ++j) {
      UNROLL
      for (uint o = 0; o < kOutputs; ++o) sums[o] = fma(x[k + j], w[o][j], sums[o]);
    }
  }
  UNROLL
  for (uint o = 0; o < kOutputs; ++o) {
    float y = simd_sum(sums[o]);
    if (lane != 0 || first + o >= p.out_features) continue;
    if (has_bias) y += bias[matrix + first + o];
    out[ulong(part) * p.out_features + first + o] = y;
  }
}

/// Grid: groups of kThreads values.
template <uint kThreads>
kernel void sum_routed(device const float* in [[buffer(0)]], device const float* weights [[buffer(1)]],
                       device float* out [[buffer(2)]], constant SumRoutedParams& p [[buffer(3)]],
                       uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const ulong at = ulong(group.x) * kThreads + index;
  if (at >= ulong(p.n_rows) * p.width) return;
  const ulong row = at / p.width;
  device const float* x = in + row * p.n_used * p.width + at % p.width;
  float sum = 0.0f;
  for (uint i = 0; i < p.n_used; ++i) sum = fma(weights[row * p.n_used + i], x[ulong(i) * p.width], sum);
  out[at] = sum;
}

#define instantiate_linear_routed(name, Name, number, elements, bytes, kind, weight, ...)                          \
  of_part(name, FOUNDRY_GPU_##weight(instantiate_kernel("linear_routed_" #name, linear_routed, Name, Eight)        \
                                         FOUNDRY_PLAIN_##kind(instantiate_kernel("linear_routed_" #name "_single", \
                                                                                 linear_routed, Name, Single))))
FOUNDRY_FORMATS(instantiate_linear_routed)
of_part(rest, instantiate_kernel("sum_routed", sum_routed, ElementwiseLaunch::kThreads);)
