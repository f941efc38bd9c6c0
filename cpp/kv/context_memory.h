// The context memory of a model: a pool of pages for each layer group, what is promised of them, and the tree of
// prefixes that are kept. Sequences take their pages here, and know nothing else of a model. The order of their locks
// stands in base/lock_order.h.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "kv/admission.h"
#include "kv/prefix_tree.h"

namespace foundry {

class ContextMemory {
 public:
  /// groups: of which the last may be a recurrent one. slab_pages: pages of a slab, 0 for as many as fit 8 MiB.
  /// prefix_bytes: kept in the prefix tree at most.
  /// estimated_bytes: others' beside the ledger's, which count against its limit.
  ContextMemory(DeviceMemory& device, MemoryLedger& ledger, const std::vector<KvGeometry>& groups, uint32_t max_seq_len,
                uint32_t slab_pages, uint64_t prefix_bytes, uint64_t estimated_bytes);
  ContextMemory(const ContextMemory&) = delete;

  /// By layer group; that of recurrent layers, where there are any, is the last.
  const std::vector<std::unique_ptr<PagePool>>& pools() const { return pools_; }
  /// Groups that have K and V.
  size_t kv_groups() const { return pools_.size() - (states() == nullptr ? 0 : 1); }
  /// Of the recurrent layers' states, or null.
  PagePool* states() const { return pools_.back()->geometry().recurrent() ? pools_.back().get() : nullptr; }
  /// The model's own: no sequence is longer.
  uint32_t max_seq_len() const { return max_seq_len_; }
  Admission& admission() { return admission_; }
  const Admission& admission() const { return admission_; }
  PrefixTree& prefixes() { return prefixes_; }
  /// What a sequence with room for n_tokens takes beside its pages: page tables, the ids of tokens, a session's own
  /// objects.
  uint64_t table_bytes(uint64_t n_tokens) const;
  /// Figures of all pools and of the ledger at one moment: nobody takes or gives a page meanwhile.
  struct Snapshot {
    struct Pool {
      std::vector<uint64_t> slab_lengths;  // each buffer's own length
      uint64_t used_pages;
    };
    std::vector<Pool> pools;
    uint64_t ledger_kv_bytes;
  };
  Snapshot snapshot() const;

 private:
  MemoryLedger& ledger_;
  uint32_t max_seq_len_;
  std::vector<std::unique_ptr<PagePool>> pools_;
  PrefixTree prefixes_;  // gives its pages back before the pools go
  Admission admission_;
};

}  // namespace foundry
