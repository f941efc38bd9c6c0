#include "base/ledger.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace foundry {

const char* memory_use_name(MemoryUse use) {
  switch (use) {
    case MemoryUse::weights_mapped:
      return "weights_mapped";
    case MemoryUse::weights_private:
      return "weights_private";
    case MemoryUse::kv:
      return "kv";
    case MemoryUse::page_tables:
      return "page_tables";
    case MemoryUse::workspace:
      return "workspace";
    case MemoryUse::logits:
      return "logits";
    case MemoryUse::sampling:
      return "sampling";
  }
  return "unknown";
}

void MemoryLedger::charge(MemoryUse use, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const uint64_t available = limit_ - std::min(limit_, total_);
  if (bytes > available)
    throw MemoryLimitError(std::string(memory_use_name(use)) + ": needed " + std::to_string(bytes) +
                               " bytes, available " + std::to_string(available) + " of the memory limit of " +
                               std::to_string(limit_),
                           bytes, available);
  used_[static_cast<size_t>(use)] += bytes;
  total_ += bytes;
}

void MemoryLedger::credit(MemoryUse use, uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  used_[static_cast<size_t>(use)] -= bytes;
  total_ -= bytes;
}

uint64_t MemoryLedger::used(MemoryUse use) const {
  const std::lock_guard lock(mutex_);
  return used_[static_cast<size_t>(use)];
}

uint64_t MemoryLedger::total() const {
  const std::lock_guard lock(mutex_);
  return total_;
}

}  // namespace foundry
