// embed, rope, swiglu, geglu, swiglu_clamped, sigmoid_gate, gelu, add, scale, resize_heads, select_rows.
#include "kernel.h"
using namespace metal;
#include "formats.h"
#include "gates.h"
#include "rope.h"

constant constexpr uint kThreads = ElementwiseLaunch::kThreads;

/// Grid: rows.
template <class Format>
kernel void embed(device const uchar* table [[buffer(0)]], device const int* tokens [[buffer(1)]],
                  device float* out [[buffer(2)]], constant EmbedParams& p [[buffer(3)]],
                  uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  // A step ahead may be fed the -1 of a draw that could not be made: what comes of it is thrown away, and reads row 0.
  device const uchar* row = table + ulong(max(tokens[group.x], 0)) * row_bytes<Format>(p.width);
  for (uint i = index; i < p.width; i += kThreads) out[ulong(group.x) * p.width + i] = Format::value(row, i) * p.scale;
}

/// Grid: rows.
template <uint unused>
kernel void rope(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                 device const int* positions [[buffer(2)]], device const float2* frequencies [[buffer(3)]],
                 constant RopeParams& p [[buffer(4)]], uint3 group [[threadgroup_position_in_grid]],
                 uint index [[thread_index_in_threadgroup]]) {
  const ulong row = ulong(group.x) * p.n_heads * p.head_dim;
  turn_heads<kThreads>(in + row, out + row, p.n_heads, positions[group.x], frequencies, p, index);
}

/// Grid: groups of kThreads values.
template <class Gate>
kernel void gated(device const float* gate [[buffer(0)]], device const float* up [[buffer(1)]],
                  device float* out [[buffer(2)]], constant ulong& n [[buffer(3)]],
                  uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const ulong i = ulong(group.x) * kThreads + index;
  if (i >= n) return;
  out[i] = gated_by<Gate>(gate[i]) * up[i];
}

/// Grid: groups of kThreads values.
template <uint unused>
kernel void swiglu_clamped(device const float* gate [[buffer(0)]], device const float* up [[buffer(1)]],
                           device float* out [[buffer(2)]], constant ulong& n [[buffer(3)]],
                           constant float& alpha [[buffer(4)]], constant float& limit [[buffer(5)]],
                           uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const ulong i = ulong(group.x) * kThreads + index;
  if (i >= n) return;
  const float g = gate[i] > limit ? limit : gate[i];  // NaN stays
  const float u = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
  out[i] = g / (1.0f + precise::exp(-alpha * g)) * (u + 1.0f);
}

/// Grid: groups of kThreads values.
template <uint unused>
kernel void sigmoid_gate(device const float* in [[buffer(0)]], device const float* gate [[buffer(1)]],
                         device float* out [[buffer(2)]], constant SigmoidGateParams& p [[buffer(3)]],
                         uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const ulong i = ulong(group.x) * kThreads + index;
  if (i >= ulong(p.n_rows) * p.n_heads * p.width) return;
  const ulong head = i / p.width, own = p.of_head == 1 ? 0 : p.of_head - p.width + i % p.width;
  out[i] = in[i] / (1.0f + precise::exp(-gate[head * p.of_head + own]));
}

/// Grid: groups of kThreads values.
template <uint unused>
kernel void gelu(device const float* in [[buffer(0)]], device float* out [[buffer(1)]], constant ulong& n [[buffer(2)]],
                 uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const ulong i = ulong(group.x) * kThreads + index;
  if (i < n) out[i] = gated_by<Gelu>(in[i]);
}

/// Grid: groups of kThreads values.
template <uint unused>
kernel void scale(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                  constant ScaleParams& p [[buffer(2)]], uint3 group [[threadgroup_position_in_grid]],
                  uint index [[thread_index_in_threadgroup]]) {
  const ulong i = ulong(group.x) * kThreads + index;
  if (i >= p.n) return;
  const float y = in[i] * p.scale;
  out[i] = p.cap == 0.0f ? y : soft_cap(y, p.cap);
}

/// Grid: groups of kThreads values of the result.
template <uint unused>
kernel void resize_heads(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                         constant ResizeHeadsParams& p [[buffer(2)]], uint3 group [[threadgroup_position_in_grid]],
                         uint index [[thread_index_in_threadgroup]]) {
  const ulong i = ulong(group.x) * kThreads + index;
  if (i >= p.n) return;
  const ulong head = i / p.to, d = i % p.to;
  out[i] = d < p.from ? in[head * p.from + d] : 0.0f;
}

/// Grid: groups of kThreads values.
template <uint unused>
kernel void add(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]],
                device float* out [[buffer(2)]], constant ulong& n [[buffer(3)]],
                uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const ulong i = ulong(group.x) * kThreads + index;
  if (i < n) out[i] = a[i] + b[i];
}

/// Grid: selected rows.
template <uint unused>
kernel void select_rows(device const int* rows [[buffer(0)]], device const float* in [[buffer(1)]],
                        device float* out [[buffer(2)]], constant uint& width [[buffer(3)]],
                        uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  device const float* from = in + ulong(rows[group.x]) * width;
  for (uint i = index; i < width; i += kThreads) out[ulong(group.x) * width + i] = from[i];
}

#define instantiate_embed(name, Name, number, elements, bytes, kind, weight, table, ...) \
  of_part(name, FOUNDRY_GPU_##table(instantiate_kernel("embed_" #name, embed, Name)))
FOUNDRY_FORMATS(instantiate_embed)
of_part(rest, instantiate_kernel("rope", rope, 0); instantiate_kernel("swiglu", gated, Silu);
        instantiate_kernel("geglu", gated, Gelu); instantiate_kernel("gelu", gelu, 0);
        instantiate_kernel("swiglu_clamped", swiglu_clamped, 0); instantiate_kernel("sigmoid_gate", sigmoid_gate, 0);
        instantiate_kernel("add", add, 0); instantiate_kernel("scale", scale, 0);
        instantiate_kernel("resize_heads", resize_heads, 0); instantiate_kernel("select_rows", select_rows, 0);)
