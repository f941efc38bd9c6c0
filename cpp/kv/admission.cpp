#include "kv/admission.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace foundry {

uint64_t Admission::kv_bytes(const Pages& claims) const {
  uint64_t bytes = 0;
  for (size_t g = 0; g < pools_.size(); ++g) {
    const uint64_t pages = pools_[g]->used_pages() + claims[g], per_slab = pools_[g]->slab_pages();
    bytes += std::max<uint64_t>(pools_[g]->slab_count(), (pages + per_slab - 1) / per_slab) * pools_[g]->slab_bytes();
  }
  return bytes;
}

uint64_t Admission::other_bytes() const { return ledger_.total() - ledger_.used(MemoryUse::kv) + estimated_bytes_; }

void Admission::exchange(const Pages& before, const Pages& after, uint64_t table_bytes) {
  const std::lock_guard lock(mutex_);
  Pages sum = claims_;
  bool grows = table_bytes != 0;
  for (size_t g = 0; g < sum.size(); ++g) {
    grows = grows || after[g] > before[g];
    sum[g] = sum[g] - before[g] + after[g];
  }
  // Also where nothing grows: what a session has given back the prefix tree may hold, and it goes before the claim is
  // taken up.
  while (kv_bytes(sum) + other_bytes() + table_bytes > ledger_.limit() && reclaim_()) {}
  if (grows) {
    const uint64_t others = kv_bytes(claims_) + other_bytes(), wanted = kv_bytes(sum) + other_bytes() + table_bytes;
    if (wanted > ledger_.limit()) {
      const uint64_t needed = wanted - std::min(others, wanted),
                     available = ledger_.limit() - std::min(ledger_.limit(), others);
      throw MemoryLimitError("K/V and page tables for this run: needed " + std::to_string(needed) +
                                 " bytes more, available " + std::to_string(available) + " of the memory limit of " +
                                 std::to_string(ledger_.limit()),
                             needed, available);
    }
    if (table_bytes != 0) ledger_.charge(MemoryUse::page_tables, table_bytes);
  }
  claims_ = std::move(sum);
}

void Admission::settle(const Pages& before, const Pages& after) noexcept {
  const std::lock_guard lock(mutex_);
  for (size_t g = 0; g < claims_.size(); ++g) claims_[g] = claims_[g] - before[g] + after[g];
}

void Admission::drop(Pages& claims) noexcept {
  const std::lock_guard lock(mutex_);
  for (size_t g = 0; g < claims.size(); ++g) claims_[g] -= claims[g], claims[g] = 0;
}

void Admission::charge(MemoryUse use, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  while (kv_bytes(claims_) + other_bytes() + bytes > ledger_.limit() && reclaim_()) {}
  const uint64_t taken = kv_bytes(claims_) + other_bytes();
  const uint64_t available = ledger_.limit() - std::min(ledger_.limit(), taken);
  if (bytes > available)
    throw MemoryLimitError(std::string(memory_use_name(use)) + ": needed " + std::to_string(bytes) +
                               " bytes, available " + std::to_string(available) + " of the memory limit of " +
                               std::to_string(ledger_.limit()),
                           bytes, available);
  ledger_.charge(use, bytes);
}

uint64_t Admission::promised_bytes() const {
  const std::lock_guard lock(mutex_);
  return kv_bytes(claims_);
}

uint64_t Admission::available_bytes() const {
  const std::lock_guard lock(mutex_);
  const uint64_t taken = kv_bytes(claims_) + other_bytes();
  return ledger_.limit() - std::min(ledger_.limit(), taken);
}

uint64_t Admission::cost_bytes(const Pages& pages) const {
  const std::lock_guard lock(mutex_);
  Pages sum = claims_;
  for (size_t g = 0; g < sum.size(); ++g) sum[g] += pages[g];
  return kv_bytes(sum) - kv_bytes(claims_);
}

}  // namespace foundry
