// Generations that are interrupted: an answer goes on in another session with the same tokens, a cancelled prompt is kept or is not,
// and memory that ends amid several answers changes none of them.
#include <doctest/doctest.h>

#include <deque>
#include <optional>
#include <random>

#include "base/error.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/model.h"
#include "engine/session.h"

namespace foundry {
namespace {

constexpr uint32_t kPage = 8, kSlabPages = 3, kChunk = 16;

struct Answers {
  test::TinyShape shape;
  Graph graph = test::tiny_graph(shape);
  test::TinyFile file{graph};

  std::shared_ptr<CompiledModel> load(uint64_t limit = 0, uint64_t prefix_bytes = 0) {
    ModelOptions options{{test::device(), 1}, limit, DType::f16, DType::f16, kPage, kSlabPages, kChunk};
    options.prefix_cache_bytes = prefix_bytes, options.check_every_step = true;
    return CompiledModel::load(file.open(), graph, options, {});
  }
  std::vector<int32_t> tokens(size_t n, uint32_t seed) const {
    std::mt19937 random(seed);
    std::vector<int32_t> ids(n);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % shape.vocab);
    return ids;
  }
};

/// Penalties count the answer's tokens: what counts them wrongly draws others.
Generation::Options penalised(uint32_t n, uint64_t seed, uint32_t answered = 0) {
  Generation::Options options;
  options.max_new_tokens = n, options.answered = answered;
  options.sampling.temperature = 0.9f, options.sampling.seed = seed;
  options.sampling.presence_penalty = 1.5f, options.sampling.frequency_penalty = 0.5f;
  return options;
}

std::vector<int32_t> all_of(Generation& generation) {
  std::vector<int32_t> found;
  for (Generation::Next next = generation.next({}); next.finish == Finish::none; next = generation.next({}))
    found.push_back(next.token);
  return found;
}

std::vector<int32_t> joined(std::vector<int32_t> a, std::span<const int32_t> b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// Of a prompt that is cancelled when `rows` of it have been computed.
void cancel_at(Session& session, std::span<const int32_t> prompt, uint64_t rows, bool keeps) {
  Generation::Options options = penalised(4, 1);
  options.keeps_cancelled = keeps;
  const uint32_t before = session.position();
  Hooks hooks;
  hooks.progress = [&](uint64_t done, uint64_t) {
    if (done >= rows) session.cancel();
  };
  CHECK_THROWS_AS(session.generate(prompt, options, hooks), CancelledError);
  CHECK(session.position() == before);
}

}  // namespace

TEST_CASE_FIXTURE(Answers, "an answer goes on in another session with the tokens that it would have had") {
  auto model = load();
  const std::vector<int32_t> prompt = tokens(40, 1);
  const auto whole = all_of(*Session::open(model, {})->generate(prompt, penalised(60, 7), {}));
  REQUIRE(whole.size() == 60);
  for (const uint32_t cut : {1u, 7u, 8u, 30u, 59u}) {
    CAPTURE(cut);
    const auto begun = joined(prompt, std::span(whole).first(cut)), rest = joined({}, std::span(whole).subspan(cut));
    const auto session = Session::open(model, {});
    CHECK(all_of(*session->generate(begun, penalised(60 - cut, 7, cut), {})) == rest);
  }
  // As a prompt the same tokens are not penalised.
  const auto begun = joined(prompt, std::span(whole).first(30)), rest = joined({}, std::span(whole).subspan(30));
  CHECK(all_of(*Session::open(model, {})->generate(begun, penalised(30, 7), {})) != rest);
}

TEST_CASE_FIXTURE(Answers, "no more of a prompt can be answered than it has") {
  auto model = load();
  const std::vector<int32_t> prompt = tokens(10, 1);
  const auto session = Session::open(model, {});
  CHECK_THROWS_AS(session->generate(prompt, penalised(4, 7, 11), {}), ValueError);
  CHECK(session->position() == 0);
  CHECK(all_of(*session->generate(prompt, penalised(4, 7, 10), {})).size() == 4);
}

TEST_CASE_FIXTURE(Answers, "of a cancelled prompt what was computed is kept where it is asked for") {
  const std::vector<int32_t> prompt = tokens(120, 2);
  const auto expected = all_of(*Session::open(load(), {})->generate(prompt, penalised(20, 3), {}));
  for (const bool keeps : {true, false}) {
    CAPTURE(keeps);
    auto model = load(0, 1 << 20);
    const auto left = Session::open(model, {});
    cancel_at(*left, prompt, 48, keeps);
    CHECK((model->memory().prefixes().bytes() != 0) == keeps);
    const auto session = Session::open(model, {});
    CHECK(all_of(*session->generate(prompt, penalised(20, 3), {})) == expected);
    CHECK(session->cached_tokens() == (keeps ? 48 : 0));
  }
}

TEST_CASE_FIXTURE(Answers, "behind a history that stays nothing of a cancelled prompt is kept") {
  auto model = load(0, 1 << 20);
  const std::vector<int32_t> prompt = tokens(120, 2);
  const auto session = Session::open(model, {});
  session->forward(std::span(prompt).first(5), LogitsOf::last, [](size_t, size_t, std::span<const float>) {}, {});
  const uint64_t before = model->memory().prefixes().bytes();
  cancel_at(*session, std::span(prompt).subspan(5), 48, true);
  CHECK(model->memory().prefixes().bytes() == before);
}

TEST_CASE_FIXTURE(Answers, "memory that ends amid several answers changes no token of them") {
  struct Answer {
    std::vector<int32_t> prompt, expected, said;
    std::shared_ptr<Session> session;
    std::shared_ptr<Generation> generation;
  };
  constexpr uint32_t kAnswers = 3, kTokens = 80;  // 100 tokens each: five slabs
  auto roomy = load();
  const uint64_t slab = roomy->memory().pools()[0]->slab_bytes(), tables = roomy->memory().table_bytes(104);
  std::vector<Answer> answers(kAnswers);
  for (uint32_t i = 0; i < kAnswers; ++i) {
    answers[i].prompt = tokens(20, 10 + i);
    answers[i].expected = all_of(*Session::open(roomy, {})->generate(answers[i].prompt, penalised(kTokens, i), {}));
    REQUIRE(answers[i].expected.size() == kTokens);
  }

  auto model = load(roomy->ledger().total() - roomy->ledger().used(MemoryUse::kv) + 7 * slab + kAnswers * tables);
  std::deque<Answer*> running, parked;
  const auto begin = [&](Answer& one) {
    one.session = Session::open(model, {});
    const auto n = static_cast<uint32_t>(one.said.size());
    const uint64_t seed = static_cast<uint64_t>(&one - answers.data());
    one.generation = one.session->generate(joined(one.prompt, one.said), penalised(kTokens - n, seed, n), {});
    running.push_back(&one);
  };
  for (Answer& one : answers) begin(one);
  uint32_t times_parked = 0;
  while (!running.empty() || !parked.empty()) {
    if (running.empty()) {
      Answer& one = *parked.front();
      parked.pop_front();
      begin(one);  // alone: there is room
    }
    Answer& one = *running.front();
    running.pop_front();
    const uint32_t position = one.session->position();
    std::optional<Generation::Next> next;
    try {
      next = one.generation->next({});
    } catch (const MemoryLimitError& error) {
      CHECK(error.needed_bytes > error.available_bytes);
      CHECK(one.session->position() == position);
      one.session->check();
      ++times_parked;
    }
    if (next && next->finish == Finish::none) {
      one.said.push_back(next->token);
      running.push_back(&one);
      continue;
    }
    one.session->close();
    if (!next) parked.push_back(&one);
  }
  CHECK(times_parked >= 2);
  for (const Answer& one : answers) CHECK(one.said == one.expected);
  CHECK(model->ledger().used(MemoryUse::kv) == 0);
  CHECK(model->memory().admission().promised_bytes() == 0);
}

}  // namespace foundry
