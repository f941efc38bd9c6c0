// Models with recurrent layers on every device that there is: the same bits however a history came about (of GPUs, in
// their strict mode), and of cancelled prompts what was written before they were cancelled.
#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "base/error.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/session.h"

namespace foundry {
namespace {

using Logits = std::vector<std::vector<float>>;

struct Hybrid {
  test::TinyShape shape;
  Graph graph;
  test::TinyFile file;

  explicit Hybrid(bool delta = false)
      : shape([&] {
          test::TinyShape s;
          s.layers = 3, s.convolve = 2, s.delta = delta;
          return s;
        }()),
        graph(test::tiny_graph(shape)),
        file(graph) {}

  std::shared_ptr<CompiledModel> load(const std::string& device, uint32_t threads = 1, uint32_t page_tokens = 8,
                                      uint32_t chunk = 32, uint64_t prefix_bytes = 0, uint64_t state_bytes = 1) const {
    ModelOptions options;
    options.device = {device, threads};
    options.page_tokens = page_tokens, options.chunk_tokens = chunk, options.prefix_cache_bytes = prefix_bytes;
    options.state_cache_bytes = state_bytes, options.check_every_step = true;
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
  static std::vector<std::string> devices() {
    std::vector<std::string> names = test::devices();
    std::erase_if(names, [](const std::string& name) { return make_device({name, 1, {}})->info().half_tiles; });
    return names;
  }
};

Logits feed(Session& session, std::span<const int32_t> tokens) {
  Logits logits;
  session.forward(tokens, LogitsOf::all,
                  [&](size_t, size_t row, std::span<const float> values) {
                    CHECK(row == logits.size());
                    logits.emplace_back(values.begin(), values.end());
                  },
                  {});
  return logits;
}

bool same_bits(const Logits& a, const Logits& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  return true;
}

/// Short convolutions, or delta nets, whose state has two parts.
void no_bit_changes(const Hybrid& hybrid) {
  const std::vector<int32_t> ids = hybrid.tokens(290), others = hybrid.tokens(50, 9);
  for (const std::string& device : Hybrid::devices()) {
    CAPTURE(device);
    const Logits expected = feed(*Session::open(hybrid.load(device), {300, 300, 1}), ids);
    const auto tail = [&](size_t from) {
      return Logits(expected.begin() + static_cast<std::ptrdiff_t>(from), expected.end());
    };
    for (const auto& [threads, page, chunk] : {std::array<uint32_t, 3>{1, 8, 32}, {2, 16, 7}, {3, 64, 300}}) {
      auto model = hybrid.load(device, threads, page, chunk);
      auto session = Session::open(model, {1, 1, 1});
      Logits got;
      size_t at = 0;
      for (const size_t n : {1, 2, 64, 5, 1, 100, 117}) {
        for (auto& row : feed(*session, std::span(ids).subspan(at, n))) got.push_back(std::move(row));
        at += n;
      }
      CHECK(same_bits(expected, got));
      for (const uint32_t to : {289u, 280u, 143u, 64u, 1u}) {
        const uint32_t replay = session->replay(to);
        auto fork = session->fork();
        fork->rewind(to);
        CHECK(fork->replay(to) == replay);
        CHECK(same_bits(feed(*fork, std::span(ids).subspan(to)), tail(to)));
        CHECK(fork->replayed_tokens() == replay);
      }
      session->rewind(200);
      auto beside = Session::open(model, {});
      Logits batched;
      const std::array items{BatchItem{session.get(), std::span(ids).subspan(200)}, BatchItem{beside.get(), others}};
      Session::forward(*model, items, LogitsOf::all,
                       [&](size_t item, size_t, std::span<const float> row) {
                         if (item == 0) batched.emplace_back(row.begin(), row.end());
                       },
                       {});
      CHECK(same_bits(batched, tail(200)));
    }
  }
}

}  // namespace

TEST_CASE("recurrent layers: chunks, pages, threads, batches, rewinds and forks change no bit") {
  for (const bool delta : {false, true}) {
    CAPTURE(delta);
    no_bit_changes(Hybrid(delta));
  }
}

TEST_CASE_FIXTURE(Hybrid, "recurrent layers: score runs what it needs again, and gives what forward gives") {
  const std::vector<int32_t> ids = tokens(60);
  for (const std::string& device : devices()) {
    auto model = load(device);
    const std::vector<float> whole = Session::open(model, {})->score(ids, {});
    auto session = Session::open(model, {});
    session->forward(std::span(ids).first(21), LogitsOf::last, [](size_t, size_t, std::span<const float>) {}, {});
    const std::vector<float> rest = session->score(std::span(ids).subspan(21), {});
    CHECK(session->replayed_tokens() == 4);  // from 16 to 20; the last one runs for its logits
    REQUIRE(rest.size() == 39);
    CHECK(std::memcmp(rest.data(), whole.data() + 21, rest.size() * sizeof(float)) == 0);
  }
}

TEST_CASE_FIXTURE(Hybrid, "recurrent layers: a generation goes on behind what it keeps, and comes back if it fails") {
  const std::vector<int32_t> ids = tokens(100), more = tokens(30, 7);
  auto model = load(test::device());
  auto session = Session::open(model, {});
  Generation::Options options;
  options.max_new_tokens = 0;
  session->generate(ids, options, {});
  const std::vector<int32_t> bad{-1};
  const auto before = session->replay(50);
  CHECK_THROWS_AS(session->generate(bad, options, {}, 50), ValueError);
  CHECK((session->tokens() == ids && session->replay(100) == 0 && session->replay(50) == before));
  session->generate(more, options, {}, 50);
  CHECK(session->replayed_tokens() == before);
  std::vector<int32_t> joined(ids.begin(), ids.begin() + 50);
  joined.insert(joined.end(), more.begin(), more.end());
  CHECK(session->tokens() == joined);
  auto fresh = Session::open(model, {});
  feed(*fresh, joined);
  CHECK(same_bits(feed(*session, ids), feed(*fresh, ids)));
}

TEST_CASE_FIXTURE(
    Hybrid, "recurrent layers: of a cancelled prompt the prefix tree keeps what lies before a state that is whole") {
  const std::vector<int32_t> prompt = tokens(120, 2);
  auto model = load(test::device(), 1, 8, 12, 1 << 20, 1 << 20);
  auto session = Session::open(model, {});
  Generation::Options options;
  options.max_new_tokens = 0, options.keeps_cancelled = true;
  Hooks hooks;
  hooks.progress = [&](uint64_t done, uint64_t) {
    if (done >= 48) session->cancel();
  };
  CHECK_THROWS_AS(session->generate(prompt, options, hooks), CancelledError);
  CHECK(session->position() == 0);
  const auto next = Session::open(model, {});
  next->generate(prompt, options, {});
  CHECK(next->cached_tokens() == 48);
  auto fresh = Session::open(load(test::device()), {});
  feed(*fresh, prompt);
  CHECK(same_bits(feed(*next, prompt), feed(*fresh, prompt)));
}

TEST_CASE("recurrent layers: the plan is what is taken, states to the byte") {
  for (const bool delta : {false, true}) {
    const Hybrid hybrid(delta);
    const test::TinyShape& s = hybrid.shape;
    auto model = hybrid.load(test::device());
    const Capacity capacity{20, 200, 1};
    const PlannedBytes planned = model->plan(capacity, 0);
    const uint64_t values = s.v_heads * s.head_v, channels = 2 * s.k_heads * s.head_k + values;
    const uint64_t state = 2 * sizeof(float) * (delta ? 2 * channels + values * s.head_k : uint64_t{2} * s.hidden);
    CHECK(model->memory().states()->geometry().page_bytes() == state);
    const PagePool& states = *model->memory().states();
    const uint64_t pages = 2 + 2 + 2, slabs = (pages + states.slab_pages() - 1) / states.slab_pages();
    CHECK(planned.states == slabs * states.slab_bytes());
    auto session = Session::open(model, capacity);
    CHECK(model->memory().admission().promised_bytes() == planned.kv_reserved);
    CHECK(model->ledger().total() == planned.loaded.total() + planned.kv_initial + planned.page_tables);
    feed(*session, hybrid.tokens(200));
    CHECK(model->ledger().used(MemoryUse::kv) == planned.kv_reserved);
    CHECK(model->memory().admission().promised_bytes() == planned.kv_reserved);
    CHECK(session->figures().state_bytes <= (2 + 2 + 2) * state);
  }
}

}  // namespace foundry
