#include "base/thread_pool.h"

#include <string>
#include <system_error>

#include "base/error.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace foundry {
namespace {

constexpr uint32_t kMaxThreads = 1024;
constexpr int kSpins = 2000;  // some microseconds: the gap between two ops of a step
constexpr int kYields = 200;
constexpr uint64_t kTasks = 0xffffffff;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Spins, then yields; false when neither was enough.
template <class Ready>
bool wait_a_little(const Ready& ready) {
  for (int i = 0; i < kSpins; ++i) {
    if (ready()) return true;
    pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (ready()) return true;
    std::this_thread::yield();
  }
  return ready();
}

}  // namespace

uint32_t default_threads() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<uint32_t>(CPU_COUNT(&set));
#endif
  const uint32_t n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : n;
}

ThreadPool::ThreadPool(uint32_t n_threads) {
  if (n_threads > kMaxThreads)
    throw ValueError("threads: expected at most " + std::to_string(kMaxThreads) + ", found " +
                     std::to_string(n_threads));
  workers_.reserve(n_threads);
  try {
    for (uint32_t i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error& refusal) {
    const size_t started = size();
    stop();
    const int code = refusal.code().value();
    throw IoError("",
                  "threads: expected " + std::to_string(n_threads) + ", the system started " + std::to_string(started) +
                      ": " + std::system_category().message(code),
                  code);
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(uint64_t n_tasks, Call call, void* body) {
  call_ = call;
  body_ = body;
  n_tasks_ = n_tasks;
  done_.store(0, std::memory_order_relaxed);
  list_.store(((list_.load(std::memory_order_relaxed) >> 32) + 1) << 32 | n_tasks);
  if (sleeping_.load() != 0) {  // sequentially consistent with list_: a worker sees the list, or is seen asleep
    const std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  while (take_task(0)) {}
  const auto done = [&] { return done_.load(std::memory_order_acquire) == n_tasks; };
  while (!wait_a_little(done)) {}
}

bool ThreadPool::take_task(uint32_t thread) {
  uint64_t list = list_.load(std::memory_order_acquire);
  do {
    if ((list & kTasks) == 0) return false;
  } while (!list_.compare_exchange_weak(list, list - 1, std::memory_order_acq_rel, std::memory_order_acquire));
  call_(body_, n_tasks_ - (list & kTasks), thread);
  done_.fetch_add(1, std::memory_order_release);
  return true;
}

void ThreadPool::work(uint32_t thread) {
  const auto news = [this] { return (list_.load() & kTasks) != 0 || stop_.load(); };
  while (true) {
    if (!wait_a_little(news)) {
      std::unique_lock lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, news);
      sleeping_.fetch_sub(1);
    }
    if (stop_.load()) return;
    while (take_task(thread)) {}
  }
}

}  // namespace foundry
