// What is promised to sessions against the memory limit. A promise is in pages; the K/V that all promises can ever take is the
// slabs that hold their sum, since a pool fills its slabs before it adds one. What can't be promised is refused with figures.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/ledger.h"
#include "kv/kv.h"

namespace foundry {

class Admission {
 public:
  Admission(MemoryLedger& ledger, const std::vector<std::unique_ptr<PagePool>>& pools)
      : ledger_(ledger), pools_(pools), pages_(pools.size()) {}

  /// Replaces a session's promise of `before` pages by `after` (one figure for each group). MemoryLimitError changes nothing.
  void exchange(const std::vector<uint64_t>& before, const std::vector<uint64_t>& after);
  /// Bytes of host results (all_logits) about to be made; refused like a promise.
  void charge_logits(uint64_t bytes);
  void credit_logits(uint64_t bytes) { ledger_.credit(MemoryUse::logits, bytes); }

  /// K/V bytes that the promises can take, whole slabs.
  uint64_t promised_bytes() const;
  /// limit - what is used or promised.
  uint64_t available_bytes() const;
  /// What promising these pages on top would add.
  uint64_t cost_bytes(const std::vector<uint64_t>& pages) const;

 private:
  uint64_t kv_bytes(const std::vector<uint64_t>& pages) const;
  uint64_t other_bytes() const;

  MemoryLedger& ledger_;
  const std::vector<std::unique_ptr<PagePool>>& pools_;
  mutable std::mutex mutex_;
  std::vector<uint64_t> pages_;  // by group: the sum of all promises
};

}  // namespace foundry
