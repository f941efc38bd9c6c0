// kv_append: a row's K or V into the page of its position, in the page's type (cpp/formats/kv_rows.h has the layout:
// here a tile is one token, so K lies as V does); and rope_append, which turns Q and K before.
#include "kernel.h"
using namespace metal;
#include "formats.h"
#include "rope.h"
#include "sequences.h"

/// Where a head's K (part 0) or V (part 1) of a row lies in its page.
template <class Format>
METAL_FUNC device uchar* kept_row(SequenceRow at, constant KvParams& kv, uint layer, uint part, uint head) {
  const ulong offset = layer * kv.layer_stride_bytes + (part == 0 ? 0 : kv.k_part_bytes);
  device uchar* page = at.sequence->pages[at.position / kv.page_tokens].data;
  return page + offset + head * kv.head_stride_bytes + (at.position % kv.page_tokens) * row_bytes<Format>(kv.head_dim);
}

/// Grid: rows.
template <class Format>
kernel void kv_append(device const float* in [[buffer(0)]], device const Sequence* sequences [[buffer(1)]],
                      constant KvParams& kv [[buffer(2)]], constant AppendParams& p [[buffer(3)]],
                      uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const SequenceRow at = sequence_of(sequences, p.n_sequences, group.x);
  const uint blocks = kv.head_dim / BlockOf<Format>::kElements;
  for (uint i = index; i < kv.n_kv_heads * blocks; i += KvAppendLaunch::kThreads) {
    const uint head = i / blocks, block = i % blocks;
    Format::put(kept_row<Format>(at, kv, p.layer, p.part, head), block,
                in + (ulong(group.x) * kv.n_kv_heads + head) * kv.head_dim);
  }
}

/// Grid: (heads of Q, then of K and V; rows). K and V are of one type. K is turned in `k_out`.
template <class Format>
kernel void rope_append(device const float* q [[buffer(0)]], device float* q_out [[buffer(1)]],
                        device const float* k [[buffer(2)]], device float* k_out [[buffer(3)]],
                        device const float* v [[buffer(4)]], device const int* positions [[buffer(5)]],
                        device const float2* frequencies [[buffer(6)]], constant RopeParams& of_q [[buffer(7)]],
                        constant RopeParams& of_k [[buffer(8)]], device const Sequence* sequences [[buffer(9)]],
                        constant KvParams& kv [[buffer(10)]], constant AppendParams& p [[buffer(11)]],
                        uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  constexpr uint kThreads = RopeAppendLaunch::kThreads;
  const uint row = group.y;
  if (group.x < of_q.n_heads) {
    const ulong head = (ulong(row) * of_q.n_heads + group.x) * of_q.head_dim;
    turn_heads<kThreads>(q + head, q_out + head, 1, positions[row], frequencies, of_q, index);
    return;
  }
  const uint kv_head = group.x - of_q.n_heads;
  const ulong head = (ulong(row) * kv.n_kv_heads + kv_head) * kv.head_dim;
  const SequenceRow at = sequence_of(sequences, p.n_sequences, row);
  const uint blocks = kv.head_dim / BlockOf<Format>::kElements;
  turn_heads<kThreads>(k + head, k_out + head, 1, positions[row], frequencies, of_k, index);
  for (uint block = index; block < blocks; block += kThreads)
    Format::put(kept_row<Format>(at, kv, p.layer, 1, kv_head), block, v + head);
  threadgroup_barrier(mem_flags::mem_device);
  for (uint block = index; block < blocks; block += kThreads)
    Format::put(kept_row<Format>(at, kv, p.layer, 0, kv_head), block, k_out + head);
}

#define instantiate_kv_append(name, Name, number, elements, bytes, kind, weight, table, kv) \
  of_part(name, FOUNDRY_GPU_##kv(instantiate_kernel("kv_append_" #name, kv_append, Name);   \
                                 instantiate_kernel("rope_append_" #name, rope_append, Name)))
FOUNDRY_FORMATS(instantiate_kv_append)
