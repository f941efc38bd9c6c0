#include "base/lock_order.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <iterator>
#include <string>

#include "base/error.h"

namespace foundry {

const char* lock_rank_name(LockRank rank) {
  switch (rank) {
    case LockRank::calls:
      return "calls";
    case LockRank::scheduler:
      return "scheduler";
    case LockRank::history:
      return "history";
    case LockRank::sequence:
      return "sequence";
    case LockRank::admission:
      return "admission";
    case LockRank::prefixes:
      return "prefixes";
    case LockRank::pool:
      return "pool";
    case LockRank::ledger:
      return "ledger";
    case LockRank::fingerprints:
      return "fingerprints";
    case LockRank::gpu_queue:
      return "gpu_queue";
    case LockRank::gpu_memory:
      return "gpu_memory";
    case LockRank::arena:
      return "arena";
    case LockRank::thread_pool:
      return "thread_pool";
    case LockRank::fair_lock:
      return "fair_lock";
    case LockRank::forks:
      return "forks";
    case LockRank::interpreter:
      return "interpreter";
  }
  return "unknown";
}

uint64_t next_lock_number() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

#ifdef FOUNDRY_CHECK_LOCKS
namespace lock_order {
namespace {

struct Held {
  LockRank rank;
  uint64_t number;
};
/// In the order in which they were taken. It allocates nothing and is never destroyed, for locks are taken to a
/// thread's very end; what comes when it is full, in a batch of hundreds, is not looked at.
struct HeldList {
  Held items[256];
  size_t size;
};
thread_local HeldList held;

}  // namespace

void check(LockRank rank, uint64_t number) {
  for (size_t i = 0; i < held.size; ++i) {
    const Held& one = held.items[i];
    if (one.rank < rank || (one.rank == rank && one.number < number)) continue;
    throw ConsistencyError(std::string("the order of locks: ") + lock_rank_name(rank) + " (made as number " +
                           std::to_string(number) + ") is asked for by a thread that holds " +
                           lock_rank_name(one.rank) + " (number " + std::to_string(one.number) + ")");
  }
}

void taken(LockRank rank, uint64_t number) noexcept {
  if (held.size < std::size(held.items)) held.items[held.size++] = {rank, number};
}

void released(uint64_t number) noexcept {
  for (size_t i = held.size; i-- > 0;) {
    if (held.items[i].number != number) continue;
    std::copy(held.items + i + 1, held.items + held.size, held.items + i);
    --held.size;
    return;
  }
}

}  // namespace lock_order
#endif

}  // namespace foundry
