#include "kv/context_memory.h"

#include <algorithm>
#include <span>

#include "kv/states.h"

namespace foundry {
namespace {

constexpr uint64_t kRecordBytes = 1024;  // a session's own objects, the core's and Python's: measured, test_plan.py
constexpr uint64_t kSlabBytes = uint64_t{8} << 20;  // a slab's size where the pages are smaller

std::vector<std::unique_ptr<PagePool>> make_pools(DeviceMemory& device, MemoryLedger& ledger,
                                                  const std::vector<KvGeometry>& groups, uint32_t slab_pages) {
  std::vector<std::unique_ptr<PagePool>> pools;
  for (const KvGeometry& geometry : groups) {
    const uint64_t fit = std::clamp<uint64_t>(kSlabBytes / geometry.page_bytes(), 1, 64);
    pools.push_back(std::make_unique<PagePool>(device, ledger, geometry,
                                               slab_pages != 0 ? slab_pages : static_cast<uint32_t>(fit)));
  }
  return pools;
}

}  // namespace

ContextMemory::ContextMemory(DeviceMemory& device, MemoryLedger& ledger, const std::vector<KvGeometry>& groups,
                             uint32_t max_seq_len, uint32_t slab_pages, uint64_t prefix_bytes, uint64_t estimated_bytes)
    : ledger_(ledger),
      max_seq_len_(max_seq_len),
      pools_(make_pools(device, ledger, groups, slab_pages)),
      prefixes_(pools_, prefix_bytes),
      admission_(ledger, pools_, [this] { return prefixes_.evict_one(); }, estimated_bytes) {}

uint64_t ContextMemory::table_bytes(uint64_t n_tokens) const {
  uint64_t bytes = kRecordBytes + n_tokens * sizeof(int32_t);
  if (const PagePool* pool = states()) bytes += States::record_bytes(pool->geometry());
  for (const auto& pool : std::span(pools_).first(kv_groups()))
    bytes += PageTable(*pool).bytes_with(static_cast<uint32_t>(pool->geometry().pages_for(n_tokens)));
  return bytes;
}

ContextMemory::Snapshot ContextMemory::snapshot() const {
  std::vector<std::unique_lock<RankedMutex>> still;
  still.reserve(pools_.size());
  for (const auto& pool : pools_) still.push_back(pool->freeze());  // in the order of groups
  Snapshot now{{}, ledger_.used(MemoryUse::kv)};
  for (size_t g = 0; g < pools_.size(); ++g) {
    const auto [lengths, used] = pools_[g]->figures(still[g]);
    now.pools.push_back({lengths, used});
  }
  return now;
}

}  // namespace foundry
