// Who gets which rows, and that requests of several threads share steps, end alone, and leave nothing behind.
#include "engine/scheduler.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>

#include "base/error.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/session.h"
#include "engine/step_plan.h"

namespace foundry {
namespace {

using Turns = std::vector<uint32_t>;

Turns planned(const std::vector<uint64_t>& left, uint32_t most, uint32_t prompts) {
  return plan_step(left, most, prompts);
}

TEST_CASE("decodes come first, then prompts in their order") {
  CHECK(planned({}, 8, 8) == Turns{});
  CHECK(planned({1}, 8, 8) == Turns{1});
  CHECK(planned({100}, 8, 8) == Turns{8});
  CHECK(planned({100}, 8, 3) == Turns{3});
  CHECK(planned({100, 1, 1}, 8, 8) == Turns{6, 1, 1});
  CHECK(planned({3, 100, 1}, 8, 8) == Turns{3, 4, 1});
  CHECK(planned({3, 100, 1}, 8, 4) == Turns{3, 1, 1});
  CHECK(planned({100, 100, 1}, 8, 4) == Turns{4, 0, 1});
  CHECK(planned({1, 1, 1, 50}, 2, 8) == Turns{1, 1, 0, 0});
}

TEST_CASE("chunks shrink while others decode, to less than a tenth of a second") {
  ChunkSize chunk(512);
  CHECK(chunk.rows(false) == 512);
  CHECK(chunk.rows(true) == 8);  // nothing is known yet
  chunk.learn(512, 0.512);       // a millisecond a row
  CHECK(chunk.rows(true) == 80);
  CHECK(chunk.rows(false) == 512);
  for (int i = 0; i < 30; ++i) chunk.learn(96, 0.96);
  CHECK(chunk.rows(true) == 8);
  for (int i = 0; i < 60; ++i) chunk.learn(512, 0.005);
  CHECK(chunk.rows(true) == 512);
  chunk.learn(1, 1);  // a decode's time says nothing of prompts
  CHECK(chunk.rows(true) == 512);
  ChunkSize few(8);
  CHECK(few.rows(true) == 8);
}

struct Model {
  Graph graph = test::tiny_graph({});
  test::TinyFile file{graph};
  std::shared_ptr<CompiledModel> model;
  explicit Model(uint32_t chunk = 16, const std::string& device = test::device()) {
    ModelOptions options;
    options.device = {device, 1};
    options.page_tokens = 8, options.slab_pages = 3, options.chunk_tokens = chunk, options.check_every_step = true;
    model = CompiledModel::load(file.open(), graph, options, {});
  }
};

std::vector<int32_t> ids(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> result(n);
  for (int32_t& id : result) id = static_cast<int32_t>(random() % 96);
  return result;
}

std::vector<float> forward(Session& s, std::span<const int32_t> tokens, const Hooks& hooks = {}) {
  std::vector<float> logits;
  s.forward(
      tokens, LogitsOf::last,
      [&](size_t, size_t, std::span<const float> row) { logits.assign(row.begin(), row.end()); }, hooks);
  return logits;
}

TEST_CASE("those who decode at once share steps") {
  Model m;
  constexpr int kSessions = 4, kTokens = 200;
  std::vector<std::thread> threads;
  std::array<std::vector<int32_t>, kSessions> given;
  const Scheduler::Counts before = m.model->scheduler().counts();
  for (int t = 0; t < kSessions; ++t)
    threads.emplace_back([&, t] {
      const auto s = Session::open(m.model, {});
      const auto answer = s->generate(ids(5, static_cast<uint32_t>(t)), {kTokens, {}, {}}, {});
      for (auto next = answer->next({}); next.finish == Finish::none; next = answer->next({}))
        given[static_cast<size_t>(t)].push_back(next.token);
    });
  for (std::thread& thread : threads) thread.join();
  const Scheduler::Counts after = m.model->scheduler().counts();
  const uint64_t rows = after.decode_rows - before.decode_rows, steps = after.decode_steps - before.decode_steps;
  if (m.model->device_info().steps_ahead == 0)
    CHECK(rows == kSessions * (kTokens - 1));  // else steps are sessions' own
  MESSAGE("decode rows a step: " << static_cast<double>(rows) / static_cast<double>(steps));
  for (int t = 0; t < kSessions; ++t) {  // and each has what it has alone
    const auto s = Session::open(m.model, {});
    const auto answer = s->generate(ids(5, static_cast<uint32_t>(t)), {kTokens, {}, {}}, {});
    std::vector<int32_t> alone;
    for (auto next = answer->next({}); next.finish == Finish::none; next = answer->next({}))
      alone.push_back(next.token);
    CHECK(alone == given[static_cast<size_t>(t)]);
  }
}

TEST_CASE("a decode goes on beside a prompt, whose rows run in the same steps") {
  Model m(512);
  const auto prompt = Session::open(m.model, {}), decoder = Session::open(m.model, {});
  forward(*decoder, ids(3, 1));
  forward(*decoder, ids(1, 1));  // it decodes, and is known to
  std::atomic<bool> begun{false}, go_on{false};
  std::atomic<uint64_t> ran_meanwhile{0};
  std::thread prefill([&] {
    forward(*prompt, ids(290, 2),
            {[&](uint64_t rows, uint64_t) {
               if (rows != 0 && ran_meanwhile == 0) ran_meanwhile = rows;
               begun = true;
               while (!go_on) std::this_thread::yield();  // it leads no step before
             },
             {}});
  });
  while (!begun) std::this_thread::yield();
  for (uint32_t i = 0; i < 5; ++i) forward(*decoder, ids(1, i));
  CHECK(decoder->position() == 9);
  CHECK(prompt->position() == 0);
  go_on = true;
  prefill.join();
  CHECK(ran_meanwhile >= 8);
  CHECK(prompt->position() == 290);
  const auto alone = Session::open(m.model, {});
  forward(*alone, ids(290, 2));
  CHECK(forward(*prompt, ids(1, 9)) == forward(*alone, ids(1, 9)));
}

TEST_CASE("what fails or is cancelled in a step ends alone") {
  Model m;
  const auto expected = [&](uint32_t seed) {
    const auto s = Session::open(m.model, {});
    return forward(*s, ids(100, seed));
  };
  const std::vector<float> right = expected(1);
  std::atomic<int> wrong{0}, cancelled{0}, thrown{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < 30; ++round) {
        const auto s = Session::open(m.model, {});
        try {
          if (t < 2) {
            if (forward(*s, ids(100, 1)) != right) ++wrong;
          } else if (t < 4) {
            forward(*s, ids(100, 2),
                    {[&](uint64_t done, uint64_t) {
                       if (done >= 16) s->cancel();
                     },
                     {}});
            ++wrong;
          } else {
            forward(*s, ids(100, 3),
                    {[&](uint64_t done, uint64_t) {
                       if (done >= 32) throw IoError("", "the caller's own", 5);
                     },
                     {}});
            ++wrong;
          }
        } catch (const CancelledError&) {
          ++cancelled;
          if (s->position() != 0) ++wrong;
        } catch (const IoError&) {
          ++thrown;
          if (s->position() != 0) ++wrong;
        }
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(cancelled == 60);
  CHECK(thrown == 60);
  CHECK(m.model->memory().admission().promised_bytes() == 0);
  CHECK(m.model->ledger().used(MemoryUse::kv) == 0);
}

TEST_CASE("a callback that lasts holds up nobody") {
  Model m;
  const auto s = Session::open(m.model, {}), other = Session::open(m.model, {});
  std::atomic<bool> inside{false}, go_on{false};
  std::thread thread([&] {
    forward(*s, ids(50, 1),
            {[&](uint64_t, uint64_t) {
               inside = true;
               while (!go_on) std::this_thread::yield();
             },
             {}});
  });
  while (!inside) std::this_thread::yield();
  forward(*other, ids(50, 2));
  CHECK(other->position() == 50);
  CHECK(s->position() == 0);
  const auto child = s->fork();
  CHECK(child->position() == 0);
  go_on = true;
  thread.join();
  CHECK(s->position() == 50);
}

TEST_CASE("a callback can't step") {
  Model m;
  const auto s = Session::open(m.model, {}), other = Session::open(m.model, {});
  int refused = 0;
  forward(*s, ids(50, 1),
          {[&](uint64_t, uint64_t) {
             for (Session* one : {s.get(), other.get()}) {
               try {
                 forward(*one, ids(1, 1));
               } catch (const ValueError&) {
                 ++refused;
               }
             }
           },
           {}});
  CHECK(refused == 2 * (1 + 4));  // when it begins, and after each chunk
  CHECK(other->position() == 0);
}

}  // namespace
}  // namespace foundry
