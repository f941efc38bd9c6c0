// A recursive lock that is given out in the order in which it was asked for, and whose waiters can give up: each calls
// its poll at least every kPollMs, and what that throws ends the wait. It allocates nothing: destructors take it, also
// where memory is short.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <thread>

#include "base/lock_order.h"

namespace foundry {

/// Called while a call waits or runs; throws to abandon it.
using Poll = std::function<void()>;

class FairLock {
 public:
  explicit FairLock(LockRank rank) : rank_(rank) {}
  FairLock(const FairLock&) = delete;

  /// Waits behind everybody who came before. A poll is called without any lock of this class held.
  void lock(const Poll& poll = {});
  /// Where nobody has it or waits for it. Not recursive.
  bool try_lock();
  void unlock();
  /// This thread has it.
  bool mine() const;
  /// Who takes several of one rank takes them in the order of their numbers.
  uint64_t number() const { return number_; }

 private:
  static constexpr int kPollMs = 20;
  [[maybe_unused]] const LockRank rank_;
  const uint64_t number_ = next_lock_number();
  mutable RankedMutex mutex_{LockRank::fair_lock};
  std::condition_variable changed_;
  /// Of a call of lock(), on its stack; all of them are a list, in order.
  struct Waiter {
    Waiter *before = nullptr, *behind = nullptr;
  };
  void leave(Waiter& waiter);
  Waiter *first_ = nullptr, *last_ = nullptr;
  std::thread::id owner_;
  uint32_t depth_ = 0;
};

/// Holds a FairLock for a scope; waiting for it may be given up.
class FairGuard {
 public:
  explicit FairGuard(FairLock& lock, const Poll& poll = {}) : lock_(lock) { lock_.lock(poll); }
  ~FairGuard() { lock_.unlock(); }
  FairGuard(const FairGuard&) = delete;

 private:
  FairLock& lock_;
};

}  // namespace foundry
