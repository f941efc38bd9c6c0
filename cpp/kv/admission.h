// What is used and promised, against the memory limit. A promise is kept as claims: pages that a session may still take
// beyond those it holds. Used and claimed pages together tell the slabs that there can ever be, since a pool fills its
// slabs before it adds one; pages that sessions share are used once. What can't be promised is refused with figures.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/ledger.h"
#include "kv/kv.h"

namespace foundry {

class Admission {
 public:
  using Pages = std::vector<uint64_t>;  // one figure for each layer group

  /// `reclaim` gives something back that nobody was promised, or says that there is nothing: asked before a refusal.
  /// `estimated_bytes` are others' beside the ledger's (a tokenizer's): they count against the limit like what is used.
  Admission(MemoryLedger& ledger, const std::vector<std::unique_ptr<PagePool>>& pools, std::function<bool()> reclaim,
            uint64_t estimated_bytes)
      : ledger_(ledger),
        pools_(pools),
        reclaim_(std::move(reclaim)),
        estimated_bytes_(estimated_bytes),
        claims_(pools.size()) {}

  /// Replaces a session's claims, and charges `table_bytes` for its page tables; where something grows, what is not to
  /// be had is refused: MemoryLimitError changes nothing.
  void exchange(const Pages& before, const Pages& after, uint64_t table_bytes = 0);
  /// The same without asking, for pages that are the session's own: a claim is lowered after its pages were acquired,
  /// and raised before pages that stay promised are released.
  void settle(const Pages& before, const Pages& after) noexcept;
  /// Claims no more: `claims` are taken off the sum, and set to zero.
  void drop(Pages& claims) noexcept;
  /// Bytes about to be taken for something else than pages (page tables, results); refused like a promise.
  void charge(MemoryUse use, uint64_t bytes);
  void credit(MemoryUse use, uint64_t bytes) noexcept { ledger_.credit(use, bytes); }

  /// K/V bytes that sessions hold or may still take, whole slabs.
  uint64_t promised_bytes() const;
  /// limit - what is used or promised.
  uint64_t available_bytes() const;
  /// What claiming these pages on top would add.
  uint64_t cost_bytes(const Pages& pages) const;

 private:
  uint64_t kv_bytes(const Pages& claims) const;
  uint64_t other_bytes() const;

  MemoryLedger& ledger_;
  const std::vector<std::unique_ptr<PagePool>>& pools_;
  std::function<bool()> reclaim_;
  uint64_t estimated_bytes_;
  mutable RankedMutex mutex_{LockRank::admission};
  Pages claims_;  // the sum over all sessions
};

}  // namespace foundry
