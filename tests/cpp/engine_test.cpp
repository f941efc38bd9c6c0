// The engine on every device there is: same tokens, same bits; nothing changes when something fails.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/model.h"
#include "engine/session.h"

namespace foundry {
namespace {

using Logits = std::vector<std::vector<float>>;

struct Fixture {
  test::TinyShape shape;
  Graph graph = test::tiny_graph(shape);
  test::TinyFile file{graph};

  std::shared_ptr<CompiledModel> load(const std::string& device, uint32_t threads = 1, uint32_t page_tokens = 8,
                                      uint32_t slab_pages = 3, uint32_t chunk = 32, uint64_t limit = 0) {
    ModelOptions options{{device, threads}, limit, DType::f16, DType::f16, page_tokens, slab_pages, chunk};
    auto model = CompiledModel::load(file.open(), graph, options, {});
    for (const auto& pool : model->memory().pools()) pool->set_poison(true);
    return model;
  }
  std::vector<int32_t> tokens(size_t n, uint32_t seed = 5) const {
    std::mt19937 random(seed);
    std::vector<int32_t> ids(n);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % shape.vocab);
    return ids;
  }
};

Logits feed(Session& session, std::span<const int32_t> tokens) {
  Logits logits;
  session.forward(tokens, LogitsOf::all,
                  [&](size_t, size_t, std::span<const float> row) { logits.emplace_back(row.begin(), row.end()); }, {});
  return logits;
}

bool same_bits(const Logits& a, const Logits& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  return true;
}

/// What a device promises for the same tokens in other chunks: the same bits, or with half_tiles as good as the same.
bool same_logits(const CompiledModel& model, const Logits& a, const Logits& b) {
  if (!model.device_info().half_tiles) return same_bits(a, b);
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[i].size(); ++j)
      if (!(std::fabs(a[i][j] - b[i][j]) <= 2e-3f * (1 + std::fabs(a[i][j])))) return false;
  return true;
}

bool finite(const Logits& logits) {
  for (const auto& row : logits)
    for (const float x : row)
      if (!std::isfinite(x)) return false;
  return true;
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "same tokens, same bits: chunks, growth, pages, threads") {
  const std::vector<int32_t> ids = tokens(290);
  for (const std::string& device : test::devices()) {
    CAPTURE(device);
    auto model = load(device);
    auto at_once = Session::open(model, {300, 300, 1});
    const Logits expected = feed(*at_once, ids);
    REQUIRE(finite(expected));
    // Uneven chunks in a session that began for one token, on other pages, slabs, chunk sizes and threads.
    for (const auto& [threads, page, slab, chunk] :
         {std::array<uint32_t, 4>{1, 8, 3, 32}, {2, 16, 1, 7}, {3, 64, 2, 300}}) {
      CAPTURE(page);
      auto other = load(device, threads, page, slab, chunk);
      auto session = Session::open(other, {1, 1, 1});
      Logits got;
      size_t at = 0;
      for (const size_t n : {1, 2, 64, 5, 1, 100, 117}) {
        for (auto& row : feed(*session, std::span(ids).subspan(at, n))) got.push_back(std::move(row));
        at += n;
        CHECK(session->figures().capacity >= session->position());
        CHECK(session->figures().capacity - session->position() < page);
        CHECK(session->globals()[0].max_seq_len == session->figures().capacity);
      }
      CHECK(same_logits(*model, expected, got));
    }
  }
}

TEST_CASE_FIXTURE(Fixture, "batch-mates and rewinding change no bit") {
  const std::vector<int32_t> a = tokens(70, 1), b = tokens(41, 2);
  for (const std::string& device : test::devices()) {
    CAPTURE(device);
    auto model = load(device);
    auto alone_a = Session::open(model, {}), alone_b = Session::open(model, {});
    const Logits expected_a = feed(*alone_a, a), expected_b = feed(*alone_b, b);
    auto session_a = Session::open(model, {}), session_b = Session::open(model, {});
    Logits got_a, got_b;
    const std::array items{BatchItem{session_a.get(), a}, BatchItem{session_b.get(), b}};
    Session::forward(*model, items, LogitsOf::all,
                     [&](size_t item, size_t, std::span<const float> row) {
                       (item == 0 ? got_a : got_b).emplace_back(row.begin(), row.end());
                     },
                     {});
    CHECK(same_logits(*model, expected_a, got_a));
    CHECK(same_logits(*model, expected_b, got_b));
    session_a->rewind(13);
    CHECK(session_a->figures().kv_bytes == 2 * model->memory().pools()[0]->geometry().page_bytes());
    got_a.resize(13);
    for (auto& row : feed(*session_a, std::span(a).subspan(13))) got_a.push_back(std::move(row));
    CHECK(same_logits(*model, expected_a, got_a));
    const std::array twice{BatchItem{session_a.get(), a}, BatchItem{session_a.get(), b}};
    CHECK_THROWS_AS(Session::forward(*model, twice, LogitsOf::last, [](size_t, size_t, std::span<const float>) {}, {}),
                    ValueError);
  }
}

TEST_CASE_FIXTURE(Fixture, "a step that can't be leaves everything as it was") {
  auto model = load(test::device());
  auto session = Session::open(model, {1, 1, 1});
  const std::vector<int32_t> ids = tokens(301);
  const auto sink = [](size_t, size_t, std::span<const float>) {};
  try {
    session->forward(ids, LogitsOf::last, sink, {});
    FAIL("expected ContextOverflowError");
  } catch (const ContextOverflowError& e) {
    CHECK(e.needed == 301);
    CHECK(e.available == 300);
  }
  CHECK_THROWS_AS(session->forward({}, LogitsOf::last, sink, {}), ValueError);
  const std::array bad{int32_t{96}};
  CHECK_THROWS_AS(session->forward(bad, LogitsOf::last, sink, {}), ValueError);
  CHECK(session->position() == 0);
  CHECK(session->figures().capacity == 8);

  // Thrown from the progress call in mid-prefill: pages go back, the same tokens then give the same bits.
  const std::span<const int32_t> first = std::span(ids).first(200);
  const uint64_t held = model->ledger().used(MemoryUse::kv);
  CHECK_THROWS_AS(session->forward(first, LogitsOf::last, sink,
                                   {[](uint64_t done, uint64_t) {
                                      if (done >= 64) throw CancelledError("stop");
                                    },
                                    {}}),
                  CancelledError);
  CHECK(session->position() == 0);
  CHECK(model->ledger().used(MemoryUse::kv) == held);
  auto fresh = Session::open(model, {});
  CHECK(same_bits(feed(*session, first), feed(*fresh, first)));

  // Exactly the context, then one more.
  feed(*session, std::span(ids).subspan(200, 100));
  CHECK(session->figures().capacity == 300);
  CHECK_THROWS_AS(session->forward(std::span(ids).last(1), LogitsOf::last, sink, {}), ContextOverflowError);
  CHECK(session->position() == 300);
}

TEST_CASE_FIXTURE(Fixture, "promises are kept or refused, with the figures") {
  auto roomy = load(test::device());
  const uint64_t slab = roomy->memory().pools()[0]->slab_bytes(), base = roomy->ledger().total();
  const auto tables = [&](uint64_t n_tokens) { return roomy->memory().table_bytes(n_tokens); };
  auto model =
      load(test::device(), 1, 8, 3, 32, base + 4 * slab + tables(72) + tables(24));  // room for 12 pages of 8 tokens
  auto promised = Session::open(model, {8, 72, 1});                                  // 9 pages: three slabs
  CHECK(model->ledger().used(MemoryUse::kv) == slab);
  CHECK(model->ledger().used(MemoryUse::page_tables) == tables(72));
  try {
    Session::open(model, {8, 48, 1});  // 15 pages in all
    FAIL("expected MemoryLimitError");
  } catch (const MemoryLimitError& e) {
    CHECK(e.needed_bytes == 2 * slab + tables(48));
    CHECK(e.available_bytes == slab + tables(24));
  }
  CHECK(model->memory().admission().promised_bytes() == 3 * slab);
  auto small = Session::open(model, {8, 24, 1});
  CHECK_THROWS_AS(feed(*small, tokens(25)), MemoryLimitError);  // past its promise, into nothing
  CHECK(small->position() == 0);
  feed(*promised, tokens(72));  // the promise holds
  small->close();
  feed(*promised, tokens(20, 3));
  promised->close();
  CHECK(model->ledger().used(MemoryUse::kv) == 0);
  CHECK(model->memory().admission().promised_bytes() == 0);
  CHECK_THROWS_AS(load(test::device(), 1, 8, 3, 32, base - 1), MemoryLimitError);
}

TEST_CASE_FIXTURE(Fixture, "score is what the logits say; generation replays exactly") {
  for (const std::string& device : test::devices()) {
    CAPTURE(device);
    auto model = load(device);
    const std::vector<int32_t> ids = tokens(50);
    auto session = Session::open(model, {});
    const Logits logits = feed(*session, ids);
    auto scored = Session::open(model, {});
    std::vector<float> scores = scored->score(std::span(ids).first(20), {});
    const std::vector<float> rest = scored->score(std::span(ids).subspan(20), {});
    CHECK(std::isnan(scores[0]));
    scores.insert(scores.end(), rest.begin(), rest.end());
    const double off = model->device_info().half_tiles ? 4e-3 : 0;
    for (size_t i = 1; i < ids.size(); ++i)
      CHECK(std::fabs(static_cast<double>(scores[i]) - log_probability(logits[i - 1], ids[i])) <= off);
    CHECK(scored->position() == 50);

    const Sampling sampling{0.8f, 20, 0.95f, 0.01f, 42};
    std::vector<std::vector<int32_t>> runs;
    for (int run = 0; run < 2; ++run) {
      auto writer = Session::open(model, {});
      auto answer = writer->generate(std::span(ids).first(run == 0 ? 50 : 20), {30, sampling, {}}, {});
      if (run == 1) answer = writer->generate(std::span(ids).subspan(20), {30, sampling, {}}, {});
      runs.emplace_back();
      for (Generation::Next next = answer->next({}); next.finish == Finish::none; next = answer->next({}))
        runs.back().push_back(next.token);
      CHECK(answer->next({}).finish == Finish::length);
    }
    CHECK(runs[0].size() == 30);
    CHECK(runs[0] == runs[1]);
    const auto answer = session->generate(tokens(240), {100, {}, {}}, {});
    Generation::Next next;
    do next = answer->next({});
    while (next.finish == Finish::none);
    CHECK(next.finish == Finish::context);
    CHECK(session->position() == shape.max_seq_len);
  }
}

TEST_CASE_FIXTURE(Fixture, "sessions of one model from several threads") {
  auto model = load(test::device(), 2);
  const std::vector<int32_t> ids = tokens(60);
  auto first = Session::open(model, {});
  const Logits expected = feed(*first, ids);
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        auto session = Session::open(model, {});
        std::thread canceller([&] { session->cancel(); });
        Logits got;
        try {
          got = feed(*session, std::span(ids).first(static_cast<size_t>(20 + 5 * t)));
        } catch (const CancelledError&) {
          session->rewind(0);
        }
        canceller.join();
        if (got.empty()) got = feed(*session, std::span(ids).first(static_cast<size_t>(20 + 5 * t)));
        if (same_bits(Logits(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(got.size())), got))
          ++right;
        session->close();
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 20);
}

}  // namespace foundry
