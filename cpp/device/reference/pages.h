// Where an element of K or V lies: K is tiled, tile_tokens tokens side by side; V is a row for each token (params.h).
#pragma once
#include "base/dtype.h"
#include "base/half.h"
#include "params.h"

namespace foundry::reference {

enum class Part { k, v };

inline std::byte* element(const KvParams& kv, const SequenceParams& sequence, u32 layer, u32 head, Part part,
                          u64 position, u32 dim) {
  const auto* pages = reinterpret_cast<const u64*>(sequence.pages);
  const u64 token = position % kv.page_tokens;
  const u64 index = part == Part::k
                        ? (token / kv.tile_tokens * kv.head_dim + dim) * kv.tile_tokens + token % kv.tile_tokens
                        : token * kv.head_dim + dim;
  const auto type = static_cast<DType>(part == Part::k ? kv.k_type : kv.v_type);
  const u64 offset =
      layer * kv.layer_stride_bytes + head * kv.head_stride_bytes + (part == Part::v ? kv.k_part_bytes : 0);
  return reinterpret_cast<std::byte*>(pages[position / kv.page_tokens] + offset + index * block_bytes(type));
}

inline float load(const std::byte* at, u32 type) {
  switch (static_cast<DType>(type)) {
    case DType::f16:
      return f16_to_f32(*reinterpret_cast<const uint16_t*>(at));
    case DType::bf16:
      return bf16_to_f32(*reinterpret_cast<const uint16_t*>(at));
    default:
      return *reinterpret_cast<const float*>(at);
  }
}

inline void store(std::byte* at, u32 type, float value) {
  switch (static_cast<DType>(type)) {
    case DType::f16:
      *reinterpret_cast<uint16_t*>(at) = f32_to_f16(value);
      break;
    case DType::bf16:
      *reinterpret_cast<uint16_t*>(at) = f32_to_bf16(value);
      break;
    default:
      *reinterpret_cast<float*>(at) = value;
  }
}

}  // namespace foundry::reference
