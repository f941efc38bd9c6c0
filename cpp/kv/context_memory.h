// The context memory of a model: a pool of pages for each layer group, what is promised of them, and the tree of prefixes that are kept.
// Sequences take their pages here, and know nothing else of a model.
//
// The order of locks, each taken while those before it may be held and never the other way round:
//   1. the sequence's own (kv/sequence.h)   2. admission   3. the prefix tree   4. a pool   5. the ledger
// Above them a session has the lock of its calls, and the scheduler its own: neither is asked for from down here.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "kv/admission.h"
#include "kv/prefix_tree.h"

namespace foundry {

class ContextMemory {
 public:
  /// slab_pages: pages of a slab, 0 for as many as fit 8 MiB. prefix_bytes: kept in the prefix tree at most.
  /// estimated_bytes: others' beside the ledger's, which count against its limit.
  ContextMemory(DeviceMemory& device, MemoryLedger& ledger, const std::vector<KvGeometry>& groups, uint32_t max_seq_len,
                uint32_t slab_pages, uint64_t prefix_bytes, uint64_t estimated_bytes);
  ContextMemory(const ContextMemory&) = delete;

  /// By layer group.
  const std::vector<std::unique_ptr<PagePool>>& pools() const { return pools_; }
  /// The model's own: no sequence is longer.
  uint32_t max_seq_len() const { return max_seq_len_; }
  Admission& admission() { return admission_; }
  const Admission& admission() const { return admission_; }
  PrefixTree& prefixes() { return prefixes_; }
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
