// RMSNorm (arXiv:1910.07467): x / sqrt(mean(x^2) + eps) * weight.
#include "kernel.h"
using namespace metal;

/// Grid: rows. Threads: kSimdgroups * 32. Lanes sum every so many values, simdgroups in order.
template <uint kSimdgroups>
kernel void rms_norm(device const float* in [[buffer(0)]], device const float* weight [[buffer(1)]],
                     device float* out [[buffer(2)]], constant RmsNormParams& p [[buffer(3)]],
                     uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]],
                     uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float sums[kSimdgroups];
  const ulong row = ulong(group.x) * p.width;
  float squares = 0.0f;
  for (uint i = index; i < p.width; i += kSimdgroups * 32) squares = fma(in[row + i], in[row + i], squares);
  squares = simd_sum(squares);
  if (lane == 0) sums[simdgroup] = squares;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float total = 0.0f;
  for (uint i = 0; i < kSimdgroups; ++i) total += sums[i];
  const float scale = 1.0f / precise::sqrt(total / float(p.width) + p.eps);
  for (uint i = index; i < p.width; i += kSimdgroups * 32) out[row + i] = in[row + i] * scale * weight[i];
}

instantiate_kernel("rms_norm_narrow", rms_norm, RmsNormLaunch::kNarrow);
instantiate_kernel("rms_norm_wide", rms_norm, RmsNormLaunch::kWide);
