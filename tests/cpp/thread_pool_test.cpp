// The thread pool: every task once, whoever calls; workers wake, go to sleep and end.
#include "base/thread_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

using namespace foundry;

namespace {

using std::chrono::milliseconds;

/// How often each task of a list ran, and the threads that ran them. Plain integers: the pool must order the accesses.
struct Tally {
  std::vector<int> runs;
  std::vector<uint32_t> threads;
  explicit Tally(uint64_t n) : runs(n, 0), threads(n, UINT32_MAX) {}
  void operator()(uint64_t task, uint32_t thread) {
    ++runs[task];
    threads[task] = thread;
  }
  bool once_each(uint32_t pool_size) const {
    for (const int n : runs)
      if (n != 1) return false;
    for (const uint32_t thread : threads)
      if (thread >= pool_size) return false;
    return true;
  }
};

/// As many tasks as threads, each of which waits for all the others: true if every thread of the pool came.
bool all_threads_come(ThreadPool& pool) {
  std::atomic<uint32_t> here{0};
  std::atomic<bool> late{false};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  pool.parallel_for(pool.size(), [&](uint64_t, uint32_t) {
    here.fetch_add(1);
    while (here.load() < pool.size() && !late.load()) {
      if (std::chrono::steady_clock::now() > deadline) late.store(true);
      std::this_thread::yield();
    }
  });
  return !late.load();
}

}  // namespace

TEST_CASE("thread pool: each task runs once, on a thread of the pool") {
  for (const uint32_t n_threads : {1u, 2u, 3u, 8u}) {
    ThreadPool pool(n_threads);
    CHECK(pool.size() == n_threads);
    for (const uint64_t n_tasks : {1u, 2u, 3u, 7u, 8u, 9u, 1000u, 20000u}) {
      CAPTURE(n_threads);
      CAPTURE(n_tasks);
      Tally tally(n_tasks);
      pool.parallel_for(n_tasks, tally);
      CHECK(tally.once_each(n_threads));
    }
  }
}

TEST_CASE("thread pool: no task, and a pool without workers") {
  ThreadPool pool(3);
  bool called = false;
  pool.parallel_for(0, [&](uint64_t, uint32_t) { called = true; });
  CHECK_FALSE(called);

  // The caller alone: in order, on itself.
  for (const uint32_t n_threads : {0u, 1u}) {
    ThreadPool alone(n_threads);
    CHECK(alone.size() == 1);
    std::vector<uint64_t> order;
    std::vector<std::thread::id> ids;
    alone.parallel_for(5, [&](uint64_t task, uint32_t thread) {
      CHECK(thread == 0);
      order.push_back(task);
      ids.push_back(std::this_thread::get_id());
    });
    CHECK(order == std::vector<uint64_t>{0, 1, 2, 3, 4});
    CHECK(ids == std::vector<std::thread::id>(5, std::this_thread::get_id()));
  }
}

TEST_CASE("thread pool: short lists back to back, each sees the one before") {
  // Workers come late to most of these lists: none may run a task of a list that is over, or miss what the last one wrote.
  ThreadPool pool(4);
  std::vector<uint64_t> values(13);
  std::iota(values.begin(), values.end(), uint64_t{0});
  uint64_t lists = 0;
  for (; lists < 5000; ++lists) {
    const uint64_t n = 2 + lists % 12;
    std::vector<uint64_t> next = values;
    pool.parallel_for(n, [&, n](uint64_t task, uint32_t) { next[task] = values[(task + 1) % n] + 1; });
    std::vector<uint64_t> expected = values;
    for (uint64_t i = 0; i < n; ++i) expected[i] = values[(i + 1) % n] + 1;
    if (next != expected) break;
    values = next;
  }
  CHECK(lists == 5000);
}

TEST_CASE("thread pool: uneven tasks are all done when the call returns") {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::vector<int> done(24, 0);
    pool.parallel_for(done.size(), [&](uint64_t task, uint32_t) {
      if (task % 8 == 0) std::this_thread::sleep_for(milliseconds(3));
      done[task] = 1;
    });
    CHECK(std::accumulate(done.begin(), done.end(), 0) == 24);
  }
}

TEST_CASE("thread pool: every worker comes, at once and out of sleep") {
  for (const uint32_t n_threads : {2u, 4u}) {
    ThreadPool pool(n_threads);
    for (const int idle_ms : {0, 0, 1, 30, 0, 100}) {
      CAPTURE(idle_ms);
      std::this_thread::sleep_for(milliseconds(idle_ms));
      CHECK(all_threads_come(pool));
    }
  }
}

TEST_CASE("thread pool: callers on several threads, one at a time") {
  ThreadPool pool(3);
  std::mutex turn;  // what the pool asks of its callers
  std::atomic<int> right{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&, c] {
      for (uint64_t i = 0; i < 200; ++i) {
        Tally tally(2 + (i + static_cast<uint64_t>(c)) % 40);
        const std::lock_guard lock(turn);
        pool.parallel_for(tally.runs.size(), tally);
        if (tally.once_each(pool.size())) ++right;
      }
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(right == 800);
}

TEST_CASE("thread pool: several pools at once, more threads than cores") {
  std::atomic<int> right{0};
  std::vector<std::thread> owners;
  for (int p = 0; p < 4; ++p)
    owners.emplace_back([&] {
      ThreadPool pool(4);
      for (uint64_t i = 0; i < 100; ++i) {
        Tally tally(2 + i);
        pool.parallel_for(tally.runs.size(), tally);
        if (tally.once_each(pool.size())) ++right;
      }
    });
  for (std::thread& owner : owners) owner.join();
  CHECK(right == 400);
}

TEST_CASE("thread pool: the function is the caller's own, not a copy") {
  ThreadPool pool(2);
  struct Counter {
    std::atomic<int> n{0};  // not copyable
    void operator()(uint64_t, uint32_t) { ++n; }
  } counter;
  pool.parallel_for(50, counter);
  CHECK(counter.n == 50);
  const auto constant = [&](uint64_t, uint32_t) { ++counter.n; };
  pool.parallel_for(50, constant);
  CHECK(counter.n == 100);
}

TEST_CASE("thread pool: an idle pool takes no processor time") {
  ThreadPool pool(4);
  Tally tally(100);
  pool.parallel_for(100, tally);
  std::this_thread::sleep_for(milliseconds(100));
  const std::clock_t before = std::clock();  // of the whole process
  std::this_thread::sleep_for(milliseconds(300));
  const double used = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  CHECK(used < 0.1);  // one spinning worker would use what a core gives in 0.3 s
  CHECK(all_threads_come(pool));
}

TEST_CASE("thread pool: it ends at any moment") {
  for (int i = 0; i < 100; ++i) const ThreadPool at_once(4);
  for (int i = 0; i < 100; ++i) {
    ThreadPool pool(3);
    Tally tally(3);
    pool.parallel_for(3, tally);  // workers are still spinning, or have not begun
    CHECK(tally.once_each(3));
  }
  for (const int idle_ms : {1, 5, 50}) {
    ThreadPool pool(4);
    std::this_thread::sleep_for(milliseconds(idle_ms));  // yielding, or asleep
  }
}

TEST_CASE("thread pool: as many threads as the process may use, at least one") { CHECK(default_threads() >= 1); }
