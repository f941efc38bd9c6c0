#include "base/fair_lock.h"

#include <chrono>

namespace foundry {

void FairLock::lock(const Poll& poll) {
  const std::thread::id me = std::this_thread::get_id();
  RankedLock lock(mutex_);
  if (owner_ == me) {
    ++depth_;
    return;
  }
#ifdef FOUNDRY_CHECK_LOCKS
  lock.unlock();
  lock_order::check(rank_, number_);
  lock.lock();
#endif
  Waiter waiter{last_, nullptr};
  (last_ == nullptr ? first_ : last_->behind) = &waiter;
  last_ = &waiter;
  const auto my_turn = [&] { return depth_ == 0 && first_ == &waiter; };
  try {
    while (!my_turn()) {
      if (!poll) {
        changed_.wait(lock.native());
        continue;
      }
      // The system's clock: the thread sanitizer knows its wait.
      changed_.wait_until(lock.native(), std::chrono::system_clock::now() + std::chrono::milliseconds(kPollMs));
      if (my_turn()) break;
      lock.unlock();
      poll();
      lock.lock();
    }
  } catch (...) {
    if (!lock.owns_lock()) lock.lock();
    leave(waiter);
    changed_.notify_all();
    throw;
  }
  leave(waiter);
  owner_ = me;
  depth_ = 1;
#ifdef FOUNDRY_CHECK_LOCKS
  lock_order::taken(rank_, number_);
#endif
}

void FairLock::leave(Waiter& waiter) {
  (waiter.before == nullptr ? first_ : waiter.before->behind) = waiter.behind;
  (waiter.behind == nullptr ? last_ : waiter.behind->before) = waiter.before;
}

bool FairLock::try_lock() {
  const std::lock_guard lock(mutex_);
  if (depth_ != 0 || first_ != nullptr) return false;
  owner_ = std::this_thread::get_id();
  depth_ = 1;
#ifdef FOUNDRY_CHECK_LOCKS
  lock_order::taken(rank_, number_);  // in any order, for it waits for nobody
#endif
  return true;
}

void FairLock::unlock() {
  const std::lock_guard lock(mutex_);
  if (--depth_ != 0) return;
#ifdef FOUNDRY_CHECK_LOCKS
  lock_order::released(number_);
#endif
  owner_ = std::thread::id();
  changed_.notify_all();
}

bool FairLock::mine() const {
  const std::lock_guard lock(mutex_);
  return depth_ != 0 && owner_ == std::this_thread::get_id();
}

}  // namespace foundry
