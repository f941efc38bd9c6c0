// A few threads that split a list of tasks. Workers spin briefly for the next list, then yield, then sleep, so that a
// busy machine is left to others. Which thread runs which task is left to chance: tasks must not care. In the child of
// a fork the threads are gone; the first list there is given to new ones.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>

namespace foundry {

/// Threads that this process may run on, at most one a core where the system tells.
uint32_t default_threads();

class ThreadPool {
 public:
  /// n_threads in all; the caller of parallel_for is one of them.
  /// ValueError past 1,024; IoError where the system starts fewer.
  explicit ThreadPool(uint32_t n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  uint32_t size() const { return n_threads_; }

  /// function(task, thread) for each task below n_tasks; thread is below size(). Allocates nothing; one caller at a
  /// time. The function must not throw; n_tasks is below 2^32.
  template <class F>
  void parallel_for(uint64_t n_tasks, F&& function) {
    if (n_tasks == 0) return;
    if (n_tasks == 1 || n_threads_ == 1) {
      for (uint64_t task = 0; task < n_tasks; ++task) function(task, uint32_t{0});
      return;
    }
    using Body = std::remove_reference_t<F>;
    run(
        n_tasks, [](void* body, uint64_t task, uint32_t thread) { (*static_cast<Body*>(body))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&function)));
  }

 private:
  using Call = void (*)(void* body, uint64_t task, uint32_t thread);
  struct Crew;
  void run(uint64_t n_tasks, Call call, void* body);

  uint32_t n_threads_;
  std::unique_ptr<Crew> crew_;  // the threads, and what they share
};

}  // namespace foundry
