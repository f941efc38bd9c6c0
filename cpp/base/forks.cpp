#include "base/forks.h"

#include <pthread.h>

#include "base/error.h"
#include "base/lock_order.h"

namespace foundry {

struct ForkHandlers {
  RankedMutex mutex{LockRank::forks};  // held across a fork, so that the child finds the list whole
  ForkGuarded* first = nullptr;
  std::atomic<uint64_t> generation{0};

  ForkHandlers() { ::pthread_atfork(prepare, parent, child); }
  static void prepare();
  static void parent();
  static void child();
};

namespace {
/// Never destroyed: forks and objects may come later than static destructors.
ForkHandlers& handlers() {
  static auto* const all = new ForkHandlers;
  return *all;
}
}  // namespace

void ForkHandlers::prepare() { handlers().mutex.lock(); }
void ForkHandlers::parent() { handlers().mutex.unlock(); }
void ForkHandlers::child() {
  ForkHandlers& all = handlers();
  all.generation.fetch_add(1);
  for (ForkGuarded* one = all.first; one != nullptr; one = one->after_)
    if (one->inside_.load() != 0) one->abandoned_.store(true);
  all.mutex.unlock();
}

uint64_t fork_generation() { return handlers().generation.load(std::memory_order_acquire); }

ForkGuarded::ForkGuarded() {
  ForkHandlers& all = handlers();
  const std::lock_guard lock(all.mutex);
  after_ = all.first;
  if (after_ != nullptr) after_->before_ = this;
  all.first = this;
}

ForkGuarded::~ForkGuarded() {
  ForkHandlers& all = handlers();
  const std::lock_guard lock(all.mutex);
  (before_ == nullptr ? all.first : before_->after_) = after_;
  if (after_ != nullptr) after_->before_ = before_;
}

ForkGuarded::Inside::Inside(ForkGuarded& of) : of_(of) {
  of_.inside_.fetch_add(1, std::memory_order_acquire);
  if (!of_.abandoned()) return;
  of_.inside_.fetch_sub(1, std::memory_order_release);
  throw ForkedError(
      "the process was forked while another thread was in a call of this model; here, in the child, it can't be used: "
      "fork when the model is idle, or load it in the child");
}

}  // namespace foundry
