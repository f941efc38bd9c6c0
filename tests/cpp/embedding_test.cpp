// Embeddings: the hidden states behind the last norm, pooled; the same bits alone, in a batch and in chunks, and
// nothing is left behind.
#include "engine/embedding.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/error.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"

namespace foundry {
namespace {

constexpr uint32_t kHidden = 32;
using Texts = std::vector<std::vector<int32_t>>;

std::vector<int32_t> ids(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> made(n);
  for (int32_t& id : made) id = static_cast<int32_t>(random() % 96);
  return made;
}

struct Fixture {
  Graph graph = test::tiny_graph({});
  test::TinyFile file{graph};
  Texts texts{ids(5, 1), ids(70, 2), ids(1, 3), ids(16, 4), ids(33, 5), ids(2, 6)};

  std::shared_ptr<CompiledModel> load(const std::string& device, uint32_t chunk = 32, uint64_t limit = 0) const {
    ModelOptions options{{device, 1}, limit, DType::f16, DType::f16, 8, 3, chunk};
    return CompiledModel::load(file.open(), graph, options, {});
  }
};

std::vector<float> embedded(const std::shared_ptr<CompiledModel>& model, const Texts& texts, Pooling pooling,
                            const Hooks& hooks = {}) {
  std::vector<std::span<const int32_t>> spans(texts.begin(), texts.end());
  std::vector<float> rows(texts.size() * kHidden);
  embed_texts(model, spans, pooling, rows.data(), hooks);
  return rows;
}

std::vector<float> alone(const std::shared_ptr<CompiledModel>& model, const Texts& texts, Pooling pooling) {
  std::vector<float> rows;
  for (const auto& text : texts)
    for (const float value : embedded(model, {text}, pooling)) rows.push_back(value);
  return rows;
}

/// As a device promises it for the same tokens in other steps; see DeviceInfo::half_tiles.
bool same_rows(const CompiledModel& model, const std::vector<float>& a, const std::vector<float>& b) {
  if (!model.device_info().half_tiles) return a == b;
  for (size_t i = 0; i < a.size(); ++i)
    if (!(std::fabs(a[i] - b[i]) <= 2e-3f * (1 + std::fabs(a[i])))) return false;
  return a.size() == b.size();
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "embeddings: the same bits alone, together and in chunks, and no page stays") {
  for (const std::string& device : test::devices()) {
    CAPTURE(device);
    const auto model = load(device), in_chunks = load(device, 7);
    const uint64_t held = model->ledger().total();
    for (const Pooling pooling : {Pooling::mean, Pooling::cls, Pooling::last}) {
      const std::vector<float> rows = embedded(model, texts, pooling);
      for (const float value : rows) REQUIRE(std::isfinite(value));
      CHECK(same_rows(*model, rows, alone(model, texts, pooling)));
      CHECK(same_rows(*model, rows, embedded(in_chunks, texts, pooling)));
    }
    CHECK(model->ledger().total() == held);
    CHECK(model->memory().admission().promised_bytes() == 0);
  }
}

TEST_CASE_FIXTURE(Fixture, "embeddings: rows are pooled of the hidden states, in their order") {
  const auto model = load(test::device());
  const std::vector<int32_t> text = texts[1];
  auto session = Session::open(model, {});
  std::vector<float> hidden;
  const BatchItem item{session.get(), text};
  Session::forward(
      *model, {&item, 1}, LogitsOf::all,
      [&](size_t, size_t, std::span<const float> row) {
        REQUIRE(row.size() == kHidden);
        hidden.insert(hidden.end(), row.begin(), row.end());
      },
      {}, Undrawable::refuse, Gives::hidden);
  REQUIRE(hidden.size() == text.size() * kHidden);
  const std::vector<float> last = embedded(model, {text}, Pooling::last), first = embedded(model, {text}, Pooling::cls);
  CHECK(std::memcmp(last.data(), hidden.data() + hidden.size() - kHidden, kHidden * sizeof(float)) == 0);
  CHECK(std::memcmp(first.data(), hidden.data(), kHidden * sizeof(float)) == 0);
  const std::vector<float> mean = embedded(model, {text}, Pooling::mean);
  for (size_t i = 0; i < kHidden; ++i) {
    double sum = 0;
    for (size_t row = 0; row < text.size(); ++row) sum += hidden[row * kHidden + i];
    CHECK(mean[i] == static_cast<float>(sum / static_cast<double>(text.size())));
  }
}

TEST_CASE_FIXTURE(Fixture, "embeddings: texts share steps, and long ones go in chunks") {
  const auto model = load(test::device(), 32);
  std::vector<uint64_t> told;
  Hooks hooks;
  hooks.progress = [&](uint64_t done, uint64_t total) {
    CHECK(total == 127);
    told.push_back(done);
  };
  embedded(model, texts, Pooling::last, hooks);
  CHECK(model->scheduler().counts().rows == 127);
  CHECK(model->scheduler().counts().steps == 8);  // 5; 32, 32, 6; 1 + 16; 32, 1; 2
  CHECK(told.back() == 127);
}

TEST_CASE_FIXTURE(Fixture, "embeddings: with little memory fewer texts run at once, with the same bits") {
  for (uint32_t seed = 10; seed < 40; ++seed) texts.push_back(ids(1, seed));  // a page each, and the longest has nine
  const auto model = load(test::device());
  const std::vector<float> expected = embedded(model, texts, Pooling::last);
  const uint64_t needed = model->plan({0, 70, 0}, 0).total;
  const auto tight = load(test::device(), 32, needed);
  CHECK(embedded(tight, texts, Pooling::last) == expected);
  CHECK(tight->scheduler().counts().steps > model->scheduler().counts().steps);
  const auto short_of = load(test::device(), 32, needed - 1);
  CHECK_THROWS_AS(embedded(short_of, texts, Pooling::last), MemoryLimitError);
  CHECK(short_of->memory().admission().promised_bytes() == 0);
}

TEST_CASE_FIXTURE(Fixture, "embeddings: what can't be done is told before anything runs") {
  const auto model = load(test::device());
  const auto refused = [&](const Texts& bad, const char* what) {
    Texts all = texts;
    all.insert(all.end(), bad.begin(), bad.end());
    try {
      embedded(model, all, Pooling::last);
      FAIL("expected an error");
    } catch (const ValueError& error) {
      CHECK(std::string(error.what()) == what);
    } catch (const ContextOverflowError& error) {
      CHECK(std::string(error.what()) == what);
    }
    CHECK(model->scheduler().counts().steps == 0);
  };
  refused({{}}, "text 6: expected at least one token, found none");
  refused({{1, 96}}, "text 6: expected ids from 0 to 95, found 96");
  refused({{-1}}, "text 6: expected ids from 0 to 95, found -1");
  refused({ids(301, 1)}, "text 6: needed 301 tokens, available 300 of the model's context");
  CHECK(embedded(model, {}, Pooling::mean).empty());
  CHECK(embedded(model, {ids(300, 1)}, Pooling::mean).size() == kHidden);
}

TEST_CASE_FIXTURE(Fixture, "embeddings: a hidden state that is not finite names its text, and a callback may give up") {
  file.set_vector("output_norm.weight", 3, std::numeric_limits<float>::infinity());
  const auto broken = load(test::device());
  try {
    embedded(broken, texts, Pooling::last);
    FAIL("expected an error");
  } catch (const NumericError& error) {
    CHECK(error.item == 0);
    CHECK(std::string(error.what()) == "text 0: the hidden state at position 4 is not finite");
  }
  file.set_vector("output_norm.weight", 3, 1);
  const auto model = load(test::device());
  Hooks hooks;
  hooks.progress = [](uint64_t done, uint64_t) {
    if (done > 20) throw CancelledError("given up");
  };
  CHECK_THROWS_AS(embedded(model, texts, Pooling::mean, hooks), CancelledError);
  CHECK(model->memory().admission().promised_bytes() == 0);
}

TEST_CASE("embeddings: of a graph whose head begins with no norm there are none") {
  Graph graph = test::tiny_graph({});
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    if (!graph.ops[i].is<SelectRowsOp>()) continue;
    std::swap(graph.ops[i], graph.ops[i + 1]);  // the norm over all rows, then those selected
    std::swap(graph.ops[i].inputs, graph.ops[i + 1].inputs);
    std::swap(graph.ops[i].outputs, graph.ops[i + 1].outputs);
    const auto normed = static_cast<size_t>(graph.ops[i].outputs[0]);
    graph.values[normed].rows = Rows::tokens;
    graph.values[static_cast<size_t>(graph.ops[i + 1].outputs[0])].rows = Rows::selected;
    break;
  }
  verify(graph);
  CHECK(graph.hidden() == kNone);
  const test::TinyFile file(graph);
  ModelOptions options;
  options.device = {test::device(), 1};
  const auto model = CompiledModel::load(file.open(), graph, options, {});
  CHECK_THROWS_AS(embedded(model, {{1}}, Pooling::last), ValueError);
}

}  // namespace foundry
