// What the process holds on a device, by purpose, against one limit. Every device allocation is charged here before it
// is made and credited when it is freed, so "the plan equals what is allocated" can be read off.
#pragma once
#include <array>
#include <cstdint>

#include "base/lock_order.h"

namespace foundry {

/// page_tables: with the ids of tokens and the objects of sessions. logits: results of calls that asked for every
/// row's. sampling: room in which tokens are drawn.
enum class MemoryUse : uint32_t { weights_mapped, weights_private, kv, page_tables, workspace, logits, sampling };
inline constexpr uint32_t kMemoryUses = 7;
const char* memory_use_name(MemoryUse use);

class MemoryLedger {
 public:
  explicit MemoryLedger(uint64_t limit_bytes) : limit_(limit_bytes) {}
  /// Charges bytes, or throws MemoryLimitError and changes nothing. Mapped weights count too.
  void charge(MemoryUse use, uint64_t bytes);
  void credit(MemoryUse use, uint64_t bytes) noexcept;
  uint64_t used(MemoryUse use) const;
  uint64_t total() const;
  uint64_t limit() const { return limit_; }

 private:
  mutable RankedMutex mutex_{LockRank::ledger};
  uint64_t limit_;
  uint64_t total_ = 0;
  std::array<uint64_t, kMemoryUses> used_{};
};

}  // namespace foundry
