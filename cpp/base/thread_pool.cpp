#include "base/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/forks.h"
#include "base/lock_order.h"

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

/// The workers and what they share with the caller, in one place that a forked child can leave as it is.
struct ThreadPool::Crew {
  /// As many as the system starts, at most n_workers.
  explicit Crew(uint32_t n_workers);
  ~Crew();
  void run(uint64_t n, Call with, void* of);
  bool take_task(uint32_t thread);
  void work(uint32_t thread);

  // The list in hand. `list` is (a count of lists << 32 | tasks not yet taken): whoever takes one by compare-exchange
  // knows that the list is still alive, and only then reads the fields. So a worker that comes late, or never, keeps
  // nobody waiting.
  std::atomic<uint64_t> list{0};
  Call call = nullptr;
  void* body = nullptr;
  uint64_t n_tasks = 0;
  std::atomic<uint64_t> done{0};
  std::atomic<uint32_t> sleeping{0};
  std::atomic<bool> stop{false};
  RankedMutex mutex{LockRank::thread_pool};
  std::condition_variable wake;
  std::vector<std::thread> workers;
  int refusal = 0;  // errno, where the system started fewer
  const uint64_t generation = fork_generation();
};

ThreadPool::Crew::Crew(uint32_t n_workers) {
  workers.reserve(n_workers);
  try {
    for (uint32_t i = 1; i <= n_workers; ++i) workers.emplace_back([this, i] { work(i); });
  } catch (const std::system_error& error) {  // the caller sees how many there are
    refusal = error.code().value();
  }
}

ThreadPool::Crew::~Crew() {
  {
    const std::lock_guard lock(mutex);
    stop = true;
  }
  wake.notify_all();
  for (std::thread& worker : workers) worker.join();
}

ThreadPool::ThreadPool(uint32_t n_threads) : n_threads_(n_threads == 0 ? 1 : n_threads) {
  if (n_threads > kMaxThreads)
    throw ValueError("threads: expected at most " + std::to_string(kMaxThreads) + ", found " +
                     std::to_string(n_threads));
  crew_ = std::make_unique<Crew>(n_threads_ - 1);
  if (const size_t started = crew_->workers.size() + 1; started != n_threads_) {
    const int code = crew_->refusal;
    throw IoError("",
                  "threads: expected " + std::to_string(n_threads) + ", the system started " + std::to_string(started) +
                      ": " + std::system_category().message(code),
                  code);
  }
}

ThreadPool::~ThreadPool() {
  if (crew_->generation != fork_generation()) crew_.release();  // its threads are another process's
}

void ThreadPool::run(uint64_t n_tasks, Call call, void* body) {
  if (crew_->generation != fork_generation()) {
    crew_.release();
    crew_ = std::make_unique<Crew>(n_threads_ - 1);
  }
  crew_->run(n_tasks, call, body);
}

void ThreadPool::Crew::run(uint64_t n, Call with, void* of) {
  call = with;
  body = of;
  n_tasks = n;
  done.store(0, std::memory_order_relaxed);
  list.store(((list.load(std::memory_order_relaxed) >> 32) + 1) << 32 | n);
  if (sleeping.load() != 0) {  // sequentially consistent with list: a worker sees the list, or is seen asleep
    const std::lock_guard lock(mutex);
    wake.notify_all();
  }
  while (take_task(0)) {}
  const auto all_done = [&] { return done.load(std::memory_order_acquire) == n; };
  while (!wait_a_little(all_done)) {}
}

bool ThreadPool::Crew::take_task(uint32_t thread) {
  uint64_t left = list.load(std::memory_order_acquire);
  do {
    if ((left & kTasks) == 0) return false;
  } while (!list.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire));
  call(body, n_tasks - (left & kTasks), thread);
  done.fetch_add(1, std::memory_order_release);
  return true;
}

void ThreadPool::Crew::work(uint32_t thread) {
  const auto news = [this] { return (list.load() & kTasks) != 0 || stop.load(); };
  while (true) {
    if (!wait_a_little(news)) {
      RankedLock lock(mutex);
      sleeping.fetch_add(1);
      wake.wait(lock.native(), news);
      sleeping.fetch_sub(1);
    }
    if (stop.load()) return;
    while (take_task(thread)) {}
  }
}

}  // namespace foundry
