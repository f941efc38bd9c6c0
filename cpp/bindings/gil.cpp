#include "bindings/gil.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <thread>

#include "base/error.h"
#include "base/forks.h"
#include "base/lock_order.h"

namespace nb = nanobind;

namespace foundry {

namespace {
constexpr auto kPatience = std::chrono::seconds(3);  // with a call that does not end, such as a callback that sleeps
}

/// Threads that are in the core, or on their way back from it. In a forked child the others are gone, and so is what
/// they held.
struct Threads {
  RankedMutex mutex{LockRank::interpreter};
  std::condition_variable fewer;
  uint32_t inside = 0;
  std::thread::id ends_python;  // once the hook has run
  std::atomic<bool> ending{false};
  const uint64_t generation = fork_generation();

  void leave();
};

namespace {

/// Never destroyed: threads may sleep in it while the process ends.
Threads& threads() {
  static std::atomic<Threads*> all{new Threads};
  Threads* now = all.load();
  if (now->generation == fork_generation()) return *now;
  auto* const fresh = new Threads;  // the first call of a forked child
  if (all.compare_exchange_strong(now, fresh)) return *fresh;
  delete fresh;
  return *now;
}

[[noreturn]] void sleep_for_ever() {
  while (true) std::this_thread::sleep_for(std::chrono::hours(1));
}

/// Python's atexit calls it, on the thread that ends Python and with the GIL.
void on_exit() {
  Threads& all = threads();
  {
    const std::lock_guard lock(all.mutex);
    all.ends_python = std::this_thread::get_id();
    all.ending = true;
  }
  PyThreadState* const state = PyEval_SaveThread();  // callbacks that run may end
  {
    RankedLock lock(all.mutex);
    all.fewer.wait_until(lock.native(), std::chrono::system_clock::now() + kPatience, [&] { return all.inside == 0; });
  }
  PyEval_RestoreThread(state);
  // What the frames of other threads hold, or held before a fork, is never given back: that is no leak of ours.
  if (fork_generation() != 0 || nb::cast<int>(nb::module_::import_("threading").attr("active_count")()) > 1)
    nb::set_leak_warnings(false);
}

}  // namespace

void Threads::leave() {
  if (generation != fork_generation()) return;  // this thread's, before it forked: others may have held its lock
  const std::lock_guard lock(mutex);
  --inside;
  fewer.notify_all();
}

bool python_is_ending() { return threads().ending.load(std::memory_order_acquire); }

Released::Released() {
  Threads& all = threads();
  std::unique_lock lock(all.mutex);
  if (all.ending && all.ends_python == std::this_thread::get_id()) return;  // nobody else is in the core now
  const bool late = all.ending;
  if (!late) ++all.inside;
  lock.unlock();
  all_ = &all;
  state_ = PyEval_SaveThread();
  if (late) sleep_for_ever();
}

Released::~Released() {
  if (state_ == nullptr) return;
  if (python_is_ending()) {
    all_->leave();
    sleep_for_ever();
  }
  PyEval_RestoreThread(state_);  // the hook, which may have begun by now, waits for it without the GIL
  all_->leave();
}

Acquired::Acquired() {
  if (python_is_ending()) throw CancelledError("cancelled: Python is ending");
  state_ = PyGILState_Ensure();
}

Acquired::~Acquired() {
  if (python_is_ending() && PyGILState_Check() == 0) sleep_for_ever();  // Python is unwinding this thread
  PyGILState_Release(state_);
}

void bind_exit(nb::module_&) { nb::module_::import_("atexit").attr("register")(nb::cpp_function(&on_exit)); }

}  // namespace foundry
