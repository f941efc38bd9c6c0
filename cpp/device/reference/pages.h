// Where K and V of a position lie: the part of its page for a layer and a head (params.h); inside it formats/kv_rows.h
// tells.
#pragma once
#include "formats/kv_rows.h"

namespace foundry::reference {

enum class Part { k, v };

inline std::byte* part_of(const KvParams& kv, const SequenceParams& sequence, u32 layer, u32 head, Part part,
                          u64 position) {
  const auto* pages = reinterpret_cast<const u64*>(sequence.pages);
  return reinterpret_cast<std::byte*>(pages[position / kv.page_tokens] + layer * kv.layer_stride_bytes +
                                      head * kv.head_stride_bytes + (part == Part::v ? kv.k_part_bytes : 0));
}

inline float load(const KvParams& kv, const SequenceParams& sequence, u32 layer, u32 head, Part part, u64 position,
                  u32 dim) {
  const std::byte* at = part_of(kv, sequence, layer, head, part, position);
  const auto token = static_cast<u32>(position % kv.page_tokens);
  return part == Part::k ? read_k(kv, at, token, dim) : read_v(kv, at, token, dim);
}

/// x [head_dim]
inline void store(const KvParams& kv, const SequenceParams& sequence, u32 layer, u32 head, Part part, u64 position,
                  const float* x) {
  std::byte* at = part_of(kv, sequence, layer, head, part, position);
  const auto token = static_cast<u32>(position % kv.page_tokens);
  part == Part::k ? write_k(kv, at, token, x) : write_v(kv, at, token, x);
}

}  // namespace foundry::reference
