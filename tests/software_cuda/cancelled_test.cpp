// Calls that are cancelled in the middle of a step: what was launched of it has ended before its pages go.
#include <doctest/doctest.h>

#include <vector>

#include "base/error.h"
#include "cpp/tiny_llama.h"
#include "engine/session.h"

namespace foundry {
namespace {

std::vector<float> last_logits(Session& session, const std::vector<int32_t>& tokens, const Hooks& hooks) {
  std::vector<float> logits;
  session.forward(
      tokens, LogitsOf::last,
      [&](size_t, size_t, std::span<const float> values) { logits.assign(values.begin(), values.end()); }, hooks);
  return logits;
}

}  // namespace

TEST_CASE("a prompt that is cancelled between two layers leaves a context that goes on, and the history as it was") {
  test::TinyShape shape;
  shape.layers = 3;
  const Graph graph = test::tiny_graph(shape);
  const test::TinyFile file(graph);
  ModelOptions options;
  options.device.name = "cuda:strict";
  options.page_tokens = 8, options.chunk_tokens = 16;
  const auto model = CompiledModel::load(file.open(), graph, options, {});
  std::vector<int32_t> begun(12), prompt(40);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>((7 * i + 3) % shape.vocab);
  const auto whole = Session::open(model, {});
  last_logits(*whole, begun, {});
  const std::vector<float> expected = last_logits(*whole, prompt, {});
  for (int polls = 1; polls <= 10; ++polls) {
    CAPTURE(polls);
    Hooks hooks;
    int left = polls;
    hooks.interrupt = [&] {
      if (--left == 0) throw CancelledError("enough");
    };
    auto session = Session::open(model, {});
    last_logits(*session, begun, {});
    CHECK_THROWS_AS(last_logits(*session, prompt, hooks), CancelledError);
    CHECK(session->position() == begun.size());
    if (polls % 2 == 0) {  // its table is empty before the next step begins, which is another's
      session.reset();
      session = Session::open(model, {});
      last_logits(*session, begun, {});
    }
    CHECK(last_logits(*session, prompt, {}) == expected);
  }
}

}  // namespace foundry
