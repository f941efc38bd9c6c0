// LayerNorm (arXiv:1607.06450): (x - mean) / sqrt(variance + eps) * weight + bias.
#include "kernel.h"
using namespace metal;

constant constexpr uint kSimdgroups = LayerNormLaunch::kSimdgroups, kThreads = LayerNormLaunch::kThreads;

/// The threadgroup's sum: lanes together, then simdgroups in order. `sums` is free again behind it.
METAL_FUNC float sum_of(float x, threadgroup float* sums, uint simdgroup, uint lane) {
  const float part = simd_sum(x);
  if (lane == 0) sums[simdgroup] = part;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float total = 0.0f;
  for (uint i = 0; i < kSimdgroups; ++i) total += sums[i];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return total;
}

/// Grid: rows.
template <uint unused>
kernel void layer_norm(device const float* in [[buffer(0)]], device const float* weight [[buffer(1)]],
                       device const float* bias [[buffer(2)]], device float* out [[buffer(3)]],
                       constant LayerNormParams& p [[buffer(4)]], uint3 group [[threadgroup_position_in_grid]],
                       uint index [[thread_index_in_threadgroup]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float sums[kSimdgroups];
  const ulong row = ulong(group.x) * p.width;
  float total = 0.0f, squares = 0.0f;
  for (uint i = index; i < p.width; i += kThreads) total += in[row + i];
  const float mean = sum_of(total, sums, simdgroup, lane) / float(p.width);
  for (uint i = index; i < p.width; i += kThreads) squares = fma(in[row + i] - mean, in[row + i] - mean, squares);
  const float scale = 1.0f / precise::sqrt(sum_of(squares, sums, simdgroup, lane) / float(p.width) + p.eps);
  for (uint i = index; i < p.width; i += kThreads) {
    const float y = (in[row + i] - mean) * scale * weight[i];
    out[row + i] = p.has_bias != 0 ? y + bias[i] : y;
  }
}

instantiate_kernel("layer_norm", layer_norm, 0);
