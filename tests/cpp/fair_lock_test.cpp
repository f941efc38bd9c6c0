#include "base/fair_lock.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace foundry {
namespace {

TEST_CASE("a fair lock is given out in the order of asking") {
  FairLock lock(LockRank::calls);
  std::vector<int> order;
  std::vector<std::thread> threads;
  std::array<std::atomic<bool>, 5> waits{};
  lock.lock();
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([&, i] {
      const FairGuard guard(lock, [&waits, i] { waits[static_cast<size_t>(i)] = true; });
      order.push_back(i);
    });
    while (!waits[static_cast<size_t>(i)]) std::this_thread::yield();
  }
  lock.unlock();
  for (std::thread& thread : threads) thread.join();
  CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
}

TEST_CASE("a fair lock is one thread's as often as it asks, and a waiter may give up") {
  FairLock lock(LockRank::calls);
  CHECK_FALSE(lock.mine());
  const FairGuard once(lock), twice(lock);
  CHECK(lock.mine());
  std::atomic<bool> gave_up{false}, had{false};
  std::thread other([&] {
    try {
      const FairGuard guard(lock, [] { throw std::runtime_error("no more"); });
      had = true;
    } catch (const std::runtime_error&) {
      gave_up = true;
    }
  });
  other.join();
  CHECK(gave_up);
  CHECK_FALSE(had);
}

}  // namespace
}  // namespace foundry
