// Steps ahead of the host: generations share them, whoever comes and goes, and each has the tokens that it has alone.
#include "engine/ahead.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <thread>

#include "base/error.h"
#include "cpp/tiny_llama.h"
#include "engine/session.h"
#include "shadow/shadow_device.h"

namespace foundry {
namespace {

struct Model {
  Graph graph = test::tiny_graph({});
  test::TinyFile file{graph};
  std::shared_ptr<CompiledModel> model;
  Model() {
    test::register_shadow_devices();
    ModelOptions options;
    options.device = {"shadow:ahead", 1};
    options.page_tokens = 8, options.slab_pages = 3, options.chunk_tokens = 16, options.check_every_step = true;
    model = CompiledModel::load(file.open(), graph, options, {});
  }
};

std::vector<int32_t> prompt(uint32_t seed) {
  return {static_cast<int32_t>(seed % 90), 7, static_cast<int32_t>(seed / 90 % 90)};
}

Generation::Options options(uint32_t seed, uint32_t n) {
  Generation::Options o;
  o.max_new_tokens = n;
  o.sampling.temperature = 1;
  o.sampling.seed = seed;
  return o;
}

std::vector<int32_t> rest(Generation& answer) {
  std::vector<int32_t> tokens;
  for (auto next = answer.next({}); next.finish == Finish::none; next = answer.next({})) tokens.push_back(next.token);
  return tokens;
}

std::vector<int32_t> alone(Model& m, uint32_t seed, uint32_t n) {
  const auto s = Session::open(m.model, {});
  return rest(*s->generate(prompt(seed), options(seed, n), {}));
}

TEST_CASE("generations that take turns on one thread share steps ahead") {
  Model m;
  constexpr uint32_t kSessions = 5, kTokens = 60;
  std::vector<std::vector<int32_t>> expected(kSessions), found(kSessions);
  for (uint32_t i = 0; i < kSessions; ++i) expected[i] = alone(m, i, kTokens);
  std::vector<std::shared_ptr<Session>> sessions;
  std::vector<std::shared_ptr<Generation>> answers;
  for (uint32_t i = 0; i < kSessions; ++i) {
    sessions.push_back(Session::open(m.model, {}));
    answers.push_back(sessions[i]->generate(prompt(i), options(i, kTokens), {}));
  }
  const Scheduler::Counts before = m.model->scheduler().counts();
  for (uint32_t n = 0; n < kTokens; ++n)
    for (uint32_t i = 0; i < kSessions; ++i) found[i].push_back(answers[i]->next({}).token);
  const Scheduler::Counts after = m.model->scheduler().counts();
  CHECK(found == expected);
  const uint64_t rows = after.decode_rows - before.decode_rows, steps = after.decode_steps - before.decode_steps;
  CHECK(rows == kSessions * (kTokens - 1));
  CHECK(steps < 2 * kTokens);  // the first ones come one by one; five times as many if they were never together
}

TEST_CASE("whoever joins, leaves, rewinds, forks or is cancelled changes nobody else's tokens") {
  Model m;
  constexpr uint32_t kTokens = 40;
  const auto one = Session::open(m.model, {}), two = Session::open(m.model, {});
  const auto first = one->generate(prompt(1), options(1, kTokens), {});
  std::vector<int32_t> found;
  for (int i = 0; i < 5; ++i) found.push_back(first->next({}).token);
  auto second = two->generate(prompt(2), options(2, kTokens), {});
  std::vector<int32_t> beside;
  for (int i = 0; i < 5; ++i) found.push_back(first->next({}).token), beside.push_back(second->next({}).token);
  const auto fork = two->fork();  // the committed history; steps ahead are two's own
  CHECK(fork->position() == two->position());
  two->cancel();
  CHECK_THROWS_AS(second->next({}), CancelledError);
  for (int i = 0; i < 5; ++i) found.push_back(first->next({}).token);
  two->rewind(2);
  CHECK(two->position() == 2);
  second = two->generate(std::vector{prompt(2)[2]}, options(2, kTokens), {});
  for (int i = 0; i < 4; ++i) found.push_back(first->next({}).token), second->next({});
  second = nullptr;
  two->close();  // with steps of it under way
  const std::vector<int32_t> last = rest(*first);
  found.insert(found.end(), last.begin(), last.end());
  CHECK(found == alone(m, 1, kTokens));
  CHECK(beside == [&] {
    auto whole = alone(m, 2, kTokens);
    whole.resize(5);
    return whole;
  }());
  fork->close();
  one->close();
  CHECK(m.model->ledger().used(MemoryUse::kv) == 0);
  CHECK(m.model->memory().admission().promised_bytes() == 0);
}

TEST_CASE("threads that begin, end, cancel and prefill at random: each answer is the one that it is alone") {
  Model m;
  constexpr uint32_t kThreads = 6, kRounds = 12, kTokens = 25;
  std::vector<std::vector<int32_t>> expected(kThreads * kRounds);
  for (uint32_t i = 0; i < expected.size(); ++i) expected[i] = alone(m, i, kTokens);
  std::atomic<int> wrong{0}, cancelled{0};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (uint32_t round = 0; round < kRounds; ++round) {
        const uint32_t seed = t * kRounds + round;
        const auto s = Session::open(m.model, {});
        const auto answer = s->generate(prompt(seed), options(seed, kTokens), {});
        if (seed % 5 == 4) {
          answer->next({}), answer->next({});
          s->cancel();
          try {
            answer->next({});
            ++wrong;
          } catch (const CancelledError&) {
            ++cancelled;
          }
          continue;
        }
        if (rest(*answer) != expected[seed]) ++wrong;
        if (s->position() != 3 + kTokens - 1) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(cancelled == 14);
  CHECK(m.model->ledger().used(MemoryUse::kv) == 0);
}

}  // namespace
}  // namespace foundry
