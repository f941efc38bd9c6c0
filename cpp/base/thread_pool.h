// A few threads that split a list of tasks. Workers spin briefly for the next list, then yield, then sleep, so that a busy
// machine is left to others. Which thread runs which task is left to chance: tasks must not care.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

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
  uint32_t size() const { return static_cast<uint32_t>(workers_.size()) + 1; }

  /// function(task, thread) for each task below n_tasks; thread is below size(). Allocates nothing; one caller at a time.
  /// The function must not throw; n_tasks is below 2^32.
  template <class F>
  void parallel_for(uint64_t n_tasks, F&& function) {
    if (n_tasks == 0) return;
    if (n_tasks == 1 || workers_.empty()) {
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
  void run(uint64_t n_tasks, Call call, void* body);
  bool take_task(uint32_t thread);
  void work(uint32_t thread);
  void stop();

  // The list in hand. list_ is (a count of lists << 32 | tasks not yet taken): whoever takes one by compare-exchange knows that the
  // list is still alive, and only then reads the fields. So a worker that comes late, or never, keeps nobody waiting.
  std::atomic<uint64_t> list_{0};
  Call call_ = nullptr;
  void* body_ = nullptr;
  uint64_t n_tasks_ = 0;
  std::atomic<uint64_t> done_{0};
  std::atomic<uint32_t> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace foundry
