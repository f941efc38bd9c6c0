// The memory ledger: sums by purpose, a limit that nothing passes, and figures in the refusal.
#include "base/ledger.h"

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

using namespace foundry;

TEST_CASE("ledger: charges add up by purpose and come back") {
  MemoryLedger ledger(1000);
  ledger.charge(MemoryUse::kv, 300);
  ledger.charge(MemoryUse::weights_private, 700);
  CHECK((ledger.used(MemoryUse::kv) == 300 && ledger.used(MemoryUse::weights_private) == 700));
  CHECK((ledger.total() == 1000 && ledger.limit() == 1000));
  ledger.credit(MemoryUse::kv, 100);
  CHECK((ledger.used(MemoryUse::kv) == 200 && ledger.total() == 900));
}

TEST_CASE("ledger: a refusal says the figures and changes nothing") {
  MemoryLedger ledger(1000);
  ledger.charge(MemoryUse::workspace, 600);
  for (const uint64_t bytes : {uint64_t{401}, std::numeric_limits<uint64_t>::max()}) {
    try {
      ledger.charge(MemoryUse::kv, bytes);
      FAIL("charged past the limit");
    } catch (const MemoryLimitError& error) {
      CHECK((error.needed_bytes == bytes && error.available_bytes == 400));
      const std::string message = error.what();
      for (const std::string& part :
           {std::string("kv"), std::to_string(bytes), std::string("400"), std::string("1000")})
        CHECK(message.find(part) != std::string::npos);
    }
    CHECK((ledger.total() == 600 && ledger.used(MemoryUse::kv) == 0));
  }
  ledger.charge(MemoryUse::kv, 400);
  CHECK(ledger.total() == 1000);
}

TEST_CASE("ledger: threads together never pass the limit") {
  MemoryLedger ledger(5000);
  std::vector<std::thread> threads;
  std::vector<int> charged(4, 0);
  for (size_t t = 0; t < charged.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        try {
          ledger.charge(MemoryUse::kv, 1);
          ++charged[t];
        } catch (const MemoryLimitError&) {}
      }
    });
  for (std::thread& thread : threads) thread.join();
  int sum = 0;
  for (const int n : charged) sum += n;
  CHECK(sum == 5000);
  CHECK(ledger.total() == 5000);
}
