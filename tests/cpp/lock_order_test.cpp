// The order of locks: an inversion is found when it is asked for, by whichever thread does it first, and without a deadlock.
#include "base/lock_order.h"

#include <doctest/doctest.h>

#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "base/error.h"
#include "base/fair_lock.h"

namespace foundry {
namespace {

#ifdef FOUNDRY_CHECK_LOCKS

/// What is said of it; empty: it is in order.
std::string fault(const std::function<void()>& call) {
  try {
    call();
  } catch (const ConsistencyError& error) {
    return error.what();
  }
  return "";
}

template <class A, class B>
std::string both(A& first, B& second) {
  return fault([&] {
    const std::lock_guard one(first);
    const std::lock_guard two(second);
  });
}

TEST_CASE("lock order: an inversion is named, and nothing stays locked") {
  // Static here and below: the thread sanitizer does not see a mutex go, and takes another at its address for the same.
  static RankedMutex sequence(LockRank::sequence), pool(LockRank::pool), ledger(LockRank::ledger);
  CHECK(both(sequence, pool) == "");
  CHECK(both(pool, ledger) == "");
  const std::string found = both(ledger, pool);
  CHECK(found.find("pool") != std::string::npos);
  CHECK(found.find("holds ledger") != std::string::npos);
  CHECK(both(pool, sequence).find("holds pool") != std::string::npos);
  std::thread([&] {  // free, and this thread holds nothing
    for (RankedMutex* one : {&ledger, &pool, &sequence}) {
      CHECK(one->try_lock());
      one->unlock();
    }
  })
      .join();
  CHECK(both(sequence, ledger) == "");
}

TEST_CASE("lock order: of one rank, those made earlier come first") {
  static RankedMutex first(LockRank::pool), second(LockRank::pool);
  CHECK(both(first, second) == "");
  CHECK(both(second, first) != "");
  CHECK(both(first, first) != "");  // it would wait for itself
}

TEST_CASE("lock order: what was given back in between is forgotten, in whatever order") {
  static RankedMutex pool(LockRank::pool), ledger(LockRank::ledger), sequence(LockRank::sequence);
  pool.lock(), ledger.lock();
  pool.unlock();
  CHECK(fault([&] { pool.lock(); }) != "");
  ledger.unlock();
  RankedLock lock(sequence);
  lock.unlock();
  CHECK(fault([&] { const RankedLock again(pool); }) == "");
  lock.lock();
  CHECK(both(pool, ledger) == "");
}

TEST_CASE("lock order: a fair lock has its place too, and may be taken again") {
  static FairLock one(LockRank::calls), two(LockRank::calls);
  static RankedMutex sequence(LockRank::sequence);
  CHECK(fault([&] {
          const FairGuard a(one), b(two), again(one);
          const std::lock_guard inside(sequence);
        }) == "");
  CHECK(fault([&] { const FairGuard b(two), a(one); }).find("holds calls") != std::string::npos);
  CHECK(fault([&] {
          const std::lock_guard inside(sequence);
          const FairGuard a(one);
        }).find("holds sequence") != std::string::npos);
  CHECK(!one.mine());
}

#else

TEST_CASE("lock order: without the check a mutex is a plain one") { CHECK(sizeof(RankedMutex) == sizeof(std::mutex)); }

#endif

}  // namespace
}  // namespace foundry
