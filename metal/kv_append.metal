// kv_append: a row's K or V into the page of its position, in the page's type (cpp/formats/kv_rows.h has the layout:
// here a tile is one token, so K lies as V does).
#include "kernel.h"
using namespace metal;
#include "formats.h"
#include "sequences.h"

/// Grid: rows. `part` is 0 for K, 1 for V.
template <class Format>
kernel void kv_append(device const float* in [[buffer(0)]], device const Sequence* sequences [[buffer(1)]],
                      constant KvParams& kv [[buffer(2)]], constant AppendParams& p [[buffer(3)]],
                      uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const SequenceRow at = sequence_of(sequences, p.n_sequences, group.x);
  const uint blocks = kv.head_dim / BlockOf<Format>::kElements;
  const ulong offset = p.layer * kv.layer_stride_bytes + (p.part == 0 ? 0 : kv.k_part_bytes);
  device uchar* page = at.sequence->pages[at.position / kv.page_tokens].data;
  for (uint i = index; i < kv.n_kv_heads * blocks; i += KvAppendLaunch::kThreads) {
    const uint head = i / blocks, block = i % blocks;
    device uchar* part = page + offset + head * kv.head_stride_bytes;
    device uchar* row = part + (at.position % kv.page_tokens) * row_bytes<Format>(kv.head_dim);
    Format::put(row, block, in + (ulong(group.x) * kv.n_kv_heads + head) * kv.head_dim);
  }
}

#define instantiate_kv_append(name, Name, number, elements, bytes, kind, weight, table, kv) \
  of_part(name, FOUNDRY_GPU_##kv(instantiate_kernel("kv_append_" #name, kv_append, Name)))
FOUNDRY_FORMATS(instantiate_kv_append)
