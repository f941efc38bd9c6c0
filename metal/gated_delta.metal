// gated_delta: the gated delta rule (arXiv:2412.06464), whose formula is params.h's. A state's columns, values of V, do
// not see each other: a few lanes have one between them, in registers, and go through the rows with it. Then the norm
// of what comes out and its gate. A row goes over the state once before it writes it: o = kept S^T q + (k q) delta.
#include "kernel.h"
using namespace metal;
#include "gates.h"
#include "states.h"

/// log(1 + e^x), good also where e^x is far below 1 (Kahan's log1p).
METAL_FUNC float softplus(float x) {
  if (x > 30.0f) return x;
  const float power = precise::exp(x), sum = 1.0f + power;
  return sum == 1.0f ? power : precise::log(sum) * precise::divide(power, sum - 1.0f);
}

/// Grid: (groups of kSimdgroups * 32 / kSlices columns, v_heads, runs). Lane l of a simdgroup has of column l / kSlices
/// keys in fours: 4 (l % kSlices), and so on, 4 kSlices further each time. A threadgroup's simdgroups make kSimdgroups
/// rows of q and k ready, one each, and then go through them.
template <uint kSlices>
kernel void gated_delta(device const float* mixed [[buffer(0)]], device const float* alpha [[buffer(1)]],
                        device const float* beta [[buffer(2)]], device const float* decay [[buffer(3)]],
                        device const float* bias [[buffer(4)]], device float* out [[buffer(5)]],
                        device const Run* runs [[buffer(6)]], constant uint& n_runs [[buffer(7)]],
                        constant GatedDeltaParams& p [[buffer(8)]], uint3 group [[threadgroup_position_in_grid]],
                        uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint kSimdgroups = GatedDeltaLaunch::kSimdgroups, kFours = GatedDeltaLaunch::kKeys / 4;
  constexpr uint kDim = GatedDeltaLaunch::kKeys * kSlices;
  threadgroup float4 queries[kSimdgroups * kDim / 4];
  threadgroup float4 keys[kSimdgroups * kDim / 4];
  threadgroup float kept[kSimdgroups];
  threadgroup float gains[kSimdgroups];
  threadgroup float products[kSimdgroups];  // k q
  if (goes_on(runs, group.z)) return;
  const uint head = group.y, slice = lane % kSlices;
  const uint column = (group.x * kSimdgroups + simdgroup) * (32 / kSlices) + lane / kSlices;
  const bool busy = column < p.head_v;
  const uint own = min(column, p.head_v - 1);  // past the last one the last again, and nobody sees it
  const ulong all_keys = ulong(p.k_heads) * p.head_k, values = ulong(p.v_heads) * p.head_v;
  const ulong at = ulong(head) * p.head_k * p.head_v + own;  // of this column in the layer's state

  float s[kFours][4];
  device uchar* from = runs[group.z].from;
  UNROLL
  for (uint i = 0; i < kFours; ++i) {
    UNROLL
    for (uint j = 0; j < 4; ++j) {
      const uint key = (i * kSlices + slice) * 4 + j;
      s[i][j] = 0.0f;
      if (from != nullptr && key < p.head_k) s[i][j] = state_at(from, p.state_at_bytes)[at + ulong(key) * p.head_v];
    }
  }
  for (uint run = group.z; run < n_runs && (run == group.z || goes_on(runs, run)); ++run) {
    for (uint done = 0; done < runs[run].n_rows; done += kSimdgroups) {
      const uint n = min(kSimdgroups, runs[run].n_rows - done);
      const ulong first = ulong(runs[run].first_row) + done;
      threadgroup_barrier(mem_flags::mem_threadgroup);  // the rows before have been read
      if (simdgroup < n) {
        const ulong row = first + simdgroup;
        device const float* q = mixed + row * (2 * all_keys + values) + head % p.k_heads * p.head_k;
        device const float* k = q + all_keys;
        float q_squares = 0.0f, k_squares = 0.0f, product = 0.0f;
        for (uint i = lane; i < p.head_k; i += 32) {
          q_squares = fma(q[i], q[i], q_squares);
          k_squares = fma(k[i], k[i], k_squares);
        }
        const float q_length = precise::sqrt((simd_sum(q_squares) + p.qk_eps) * float(p.head_k));
        const float k_length = precise::sqrt(simd_sum(k_squares) + p.qk_eps);
        threadgroup float* own_q = (threadgroup float*)(queries + simdgroup * kDim / 4);
        threadgroup float* own_k = (threadgroup float*)(keys + simdgroup * kDim / 4);
        for (uint i = lane; i < kDim; i += 32) {
          const float qi = i < p.head_k ? precise::divide(q[i], q_length) : 0.0f;
          const float ki = i < p.head_k ? precise::divide(k[i], k_length) : 0.0f;
          own_q[i] = qi, own_k[i] = ki;
          product = fma(qi, ki, product);
        }
        product = simd_sum(product);
        if (lane == 0) {
          const ulong scalar = row * p.v_heads + head;
          kept[simdgroup] = precise::exp(decay[head] * softplus(alpha[scalar] + bias[head]));
          gains[simdgroup] = precise::divide(1.0f, 1.0f + precise::exp(-beta[scalar]));
          products[simdgroup] = product;
        }
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
      for (uint r = 0; r < n; ++r) {
        threadgroup const float4* row_q = queries + r * kDim / 4 + slice;
        threadgroup const float4* row_k = keys + r * kDim / 4 + slice;
        float known = 0.0f, seen = 0.0f;
        UNROLL
        for (uint i = 0; i < kFours; ++i) {
          const float4 q = row_q[i * kSlices], k = row_k[i * kSlices];
          known = fma(k.x, s[i][0], known), seen = fma(q.x, s[i][0], seen);
          known = fma(k.y, s[i][1], known), seen = fma(q.y, s[i][1], seen);
          known = fma(k.z, s[i][2], known), seen = fma(q.z, s[i][2], seen);
          known = fma(k.w, s[i][3], known), seen = fma(q.w, s[i][3], seen);
        }
        UNROLL
        for (uint mask = 1; mask < kSlices; mask *= 2) {
          known += simd_shuffle_xor(known, ushort(mask));
          seen += simd_shuffle_xor(seen, ushort(mask));
        }
        const ulong row = first + r;
        const float v = mixed[row * (2 * all_keys + values) + 2 * all_keys + ulong(head) * p.head_v + own];
        const float delta = gains[r] * (v - kept[r] * known);
        if (busy && slice == 0)
          out[row * values + ulong(head) * p.head_v + own] = fma(products[r], delta, kept[r] * seen);
        UNROLL
        for (uint i = 0; i < kFours; ++i) {
          const float4 k = row_k[i * kSlices];
          s[i][0] = fma(k.x, delta, kept[r] * s[i][0]);
          s[i][1] = fma(k.y, delta, kept[r] * s[i][1]);
          s[i][2] = fma(k.z, delta, kept[r] * s[i][2]);
          s[i][3] = fma(k.w, delta, kept[r] * s[i][3]);
        }
      }
    }
    device float* to = state_at(runs[run].to, p.state_at_bytes) + at;
    UNROLL
    for (uint i = 0; i < kFours; ++i) {
      UNROLL
      for (uint j = 0; j < 4; ++j) {
        const uint key = (i * kSlices + slice) * 4 + j;
        if (busy && key < p.head_k) to[ulong(key) * p.head_v] = s[i][j];
      }
    }
  }
}

/// Grid: (rows, v_heads). Threads: a simdgroup.
template <uint unused>
kernel void gated_delta_norm(device float* out [[buffer(0)]], device const float* z [[buffer(1)]],
                             device const float* norm [[buffer(2)]], constant GatedDeltaParams& p [[buffer(3)]],
                             uint3 group [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
  const ulong at = (ulong(group.x) * p.v_heads + group.y) * p.head_v;
  float squares = 0.0f;
  for (uint i = lane; i < p.head_v; i += 32) squares = fma(out[at + i], out[at + i], squares);
  const float scale = 1.0f / precise::sqrt(simd_sum(squares) / float(p.head_v) + p.eps);
  for (uint i = lane; i < p.head_v; i += 32) out[at + i] = out[at + i] * scale * norm[i] * gated_by<Silu>(z[at + i]);
}

#define instantiate_gated_delta(slices) instantiate_kernel("gated_delta_" #slices, gated_delta, slices)
FOUNDRY_DELTA_SLICES(instantiate_gated_delta)
instantiate_kernel("gated_delta_norm", gated_delta_norm, 0);
