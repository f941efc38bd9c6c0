#include <algorithm>
#include <string>

#include "base/error.h"
#include "formats/table.h"
#include "kv/kv.h"

namespace foundry {
namespace {

uint64_t part_bytes(const KvGeometry& g, DType type) {
  return uint64_t{g.page_tokens} * (g.head_dim / block_elements(type)) * block_bytes(type);
}

}  // namespace

uint64_t KvGeometry::k_part_bytes() const { return part_bytes(*this, k_type); }
uint64_t KvGeometry::v_part_bytes() const { return part_bytes(*this, v_type); }
uint64_t KvGeometry::page_bytes() const {
  if (recurrent()) return n_layers * state_bytes;
  return uint64_t{n_layers} * n_kv_heads * (k_part_bytes() + v_part_bytes());
}
uint64_t KvGeometry::pages_for(uint64_t n_tokens) const { return (n_tokens + page_tokens - 1) / page_tokens; }

uint64_t KvGeometry::first_kept(uint64_t n_tokens) const {
  if (recurrent()) return n_tokens < page_tokens ? 0 : n_tokens / page_tokens - 1;
  if (window == 0) return 0;
  const uint64_t whole = n_tokens / page_tokens, kept = pages_for(window);
  return whole - std::min(whole, kept);
}

uint64_t KvGeometry::most_pages(uint64_t n_tokens) const {
  if (recurrent()) return n_tokens == 0 ? 0 : std::min<uint64_t>(n_tokens / page_tokens, kept_states + 2) + 2;
  if (window == 0) return pages_for(n_tokens);
  return std::min(pages_for(n_tokens), pages_for(window) + 1 + step_pages());
}

uint64_t KvGeometry::pages_ahead(uint64_t n_tokens, uint64_t to) const {
  if (recurrent()) return 0;
  const uint64_t pages = pages_for(to) - std::min(pages_for(to), pages_for(n_tokens));
  return window == 0 ? pages : std::min(pages, step_pages());
}

KvParams KvGeometry::params() const {
  KvParams p{};
  p.k_part_bytes = k_part_bytes();
  p.head_stride_bytes = k_part_bytes() + v_part_bytes();
  p.layer_stride_bytes = n_kv_heads * p.head_stride_bytes;
  p.page_bytes = page_bytes();
  p.page_tokens = page_tokens;
  p.tile_tokens = tile_tokens;
  p.n_kv_heads = n_kv_heads;
  p.head_dim = head_dim;
  p.k_type = static_cast<u32>(k_type);
  p.v_type = static_cast<u32>(v_type);
  return p;
}

void KvGeometry::check() const {
  if (page_tokens < 8 || page_tokens > kSegmentTokens || kSegmentTokens % page_tokens != 0)
    throw ValueError("page_tokens: expected a divisor of " + std::to_string(kSegmentTokens) + " from 8, found " +
                     std::to_string(page_tokens));
  if (recurrent() && n_layers != 0 && kept_states >= 2) return;
  if (recurrent())
    throw ValueError("a recurrent layer group: expected at least one layer and two states kept, found " +
                     std::to_string(n_layers) + " and " + std::to_string(kept_states));
  if (tile_tokens == 0 || page_tokens % tile_tokens != 0)
    throw ValueError("tile_tokens: expected a divisor of page_tokens, " + std::to_string(page_tokens) + ", found " +
                     std::to_string(tile_tokens));
  if (n_layers == 0 || n_kv_heads == 0)
    throw ValueError("a layer group: expected at least one layer and one KV head, found " + std::to_string(n_layers) +
                     " and " + std::to_string(n_kv_heads));
  for (const DType type : {k_type, v_type})
    if (format_of(type).kv == Readers::none)
      throw ValueError(std::string("K and V: expected ") + format_names(&Format::kv) + ", found " + dtype_name(type));
  const uint32_t multiple = std::max({uint32_t{8}, block_elements(k_type), block_elements(v_type)});
  if (head_dim == 0 || head_dim % multiple != 0)
    throw ValueError("head_dim: expected a multiple of " + std::to_string(multiple) + " for K in " +
                     dtype_name(k_type) + " and V in " + dtype_name(v_type) + ", found " + std::to_string(head_dim));
}

uint32_t capacity_tokens(uint32_t n_pages, uint32_t page_tokens, uint32_t arch_max_seq_len) {
  return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{n_pages} * page_tokens, arch_max_seq_len));
}

}  // namespace foundry
