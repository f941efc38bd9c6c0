// The order of all locks of the core, in one place. A thread that holds a lock takes only such as stand below it in
// this list; of one rank, those that were made later. Hence no two threads can wait for each other.
//
// Builds with FOUNDRY_CHECK_LOCKS (the presets for tests) keep a list of what each thread holds, and an inversion is a
// ConsistencyError before the lock is waited for. Other builds have plain mutexes.
#pragma once
#include <cstdint>
#include <mutex>

namespace foundry {

enum class LockRank : uint32_t {
  calls,         // a session's, held for a whole call (a FairLock); a batch takes several
  scheduler,     // who waits and who leads; nothing is called under it
  history,       // a session's committed history and pending token, which change together
  sequence,      // tokens, tables and claims of one
  admission,     // what is promised
  prefixes,      // the tree of prefixes
  pool,          // pages of a layer group; a snapshot holds all pools of a model
  ledger,        // bytes by purpose
  fingerprints,  // hashes of files; held while one is made
  gpu_queue,     // steps of a GPU under way
  gpu_memory,    // its buffers
  arena,         // pieces of a chunk of host memory
  thread_pool,   // threads that sleep
  fair_lock,     // the inside of a FairLock
  forks,         // objects that a fork of the process marks; held across it
  interpreter,   // threads that are in the core, as Python's end counts them
};

/// As in messages.
const char* lock_rank_name(LockRank rank);
/// A number for each lock that is made, ascending.
uint64_t next_lock_number();

#ifdef FOUNDRY_CHECK_LOCKS
namespace lock_order {
/// Called before waiting for a lock: ConsistencyError where this thread holds one that comes after it.
void check(LockRank rank, uint64_t number);
void taken(LockRank rank, uint64_t number) noexcept;
void released(uint64_t number) noexcept;
}  // namespace lock_order
#endif

/// A std::mutex with its place in the order.
class RankedMutex : public std::mutex {
 public:
#ifdef FOUNDRY_CHECK_LOCKS
  explicit RankedMutex(LockRank rank) : rank_(rank), number_(next_lock_number()) {}
  void lock() {
    lock_order::check(rank_, number_);
    std::mutex::lock();
    lock_order::taken(rank_, number_);
  }
  bool try_lock() {  // it waits for nobody, so any order will do
    if (!std::mutex::try_lock()) return false;
    lock_order::taken(rank_, number_);
    return true;
  }
  void unlock() {
    lock_order::released(number_);
    std::mutex::unlock();
  }

 private:
  friend class RankedLock;
  LockRank rank_;
  uint64_t number_;
#else
  explicit constexpr RankedMutex(LockRank) noexcept {}
#endif
};

/// As std::unique_lock, for those who wait for a condition variable: it takes native().
class RankedLock {
 public:
  explicit RankedLock(RankedMutex& mutex) : mutex_(mutex) {
    mutex_.lock();
    lock_ = std::unique_lock<std::mutex>(mutex_, std::adopt_lock);
  }
  ~RankedLock() {
    if (lock_.owns_lock()) unlock();
  }
  RankedLock(const RankedLock&) = delete;
  void lock() {
    mutex_.lock();
    lock_ = std::unique_lock<std::mutex>(mutex_, std::adopt_lock);
  }
  void unlock() {
    lock_.release();
    mutex_.unlock();
  }
  /// Stays locked for ever: nobody will ask for it again.
  void release() {
    lock_.release();
#ifdef FOUNDRY_CHECK_LOCKS
    lock_order::released(mutex_.number_);
#endif
  }
  bool owns_lock() const { return lock_.owns_lock(); }
  /// While it waits this thread does nothing else, so what it holds stays as it is.
  std::unique_lock<std::mutex>& native() { return lock_; }

 private:
  RankedMutex& mutex_;
  std::unique_lock<std::mutex> lock_;
};

}  // namespace foundry
