// What must be refused, or survived: graphs that verify() once let through, too many threads, activations that are no numbers.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/thread_pool.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/model.h"
#include "engine/session.h"

namespace foundry {
namespace {

using test::tiny_graph;
using test::TinyFile;
using test::TinyShape;

std::string refused(const Graph& graph) {
  try {
    verify(graph);
  } catch (const ModelFormatError& error) {
    return error.what();
  }
  return "";
}

std::shared_ptr<CompiledModel> load(const TinyFile& file, const Graph& graph, const std::string& device) {
  ModelOptions options;
  options.device = {device, 1};
  options.page_tokens = 8;
  return CompiledModel::load(file.open(), graph, options, {});
}

}  // namespace

TEST_CASE("limits: a group promises the layers that are there") {
  Graph g = tiny_graph({});
  g.groups[0].n_layers = 1u << 31;
  CHECK(refused(g) == "graph: expected a kv_append for each of the groups' 2147483648 layers, found 2");
}

TEST_CASE("limits: a head_dim past a device's is refused by name") {
  TinyShape shape;
  shape.head_dim = 264;
  const Graph g = tiny_graph(shape);
  const TinyFile file(g);
  for (const char* device : {"reference", "cpu"}) {
    std::string what;
    try {
      load(file, g, device);
    } catch (const ModelFormatError& error) {
      what = error.what();
    }
    CHECK(what == std::string("head_dim: expected at most 256 on device ") + device + ", found 264");
  }
}

TEST_CASE("limits: rope may be wider than the heads of attention") {
  TinyShape shape;
  shape.max_seq_len = 64;
  Graph g = tiny_graph(shape);
  for (Op& op : g.ops)  // the same rotation, told as one head of all dimensions
    if (auto* rope = op.as<RopeOp>())
      rope->head_dim = rope->rot_dim = rope->head_dim * rope->n_heads, rope->n_heads = 1;
  verify(g);
  const TinyFile file(g);
  const auto model = load(file, g, test::device());
  const auto session = Session::open(model, {0, 0, 0});
  std::vector<int32_t> tokens(60, 3);
  bool finite = true;
  session->forward(tokens, LogitsOf::all,
                   [&](size_t, size_t, std::span<const float> row) {
                     for (const float x : row) finite = finite && std::isfinite(x);
                   },
                   {});
  CHECK(finite);
}

TEST_CASE("limits: too many threads are the caller's fault") {
  CHECK_THROWS_AS(ThreadPool pool(1025), ValueError);
  ThreadPool pool(2);  // and nothing is left behind
  std::atomic<uint64_t> sum{0};
  pool.parallel_for(100, [&](uint64_t task, uint32_t) { sum += task; });
  CHECK(sum == 4950);
}

TEST_CASE("limits: activations that are no numbers show in the logits") {
  // A weight of the first norm that is infinite or NaN: quantised layers behind it must pass it on, not make a number of it.
  for (const float poison : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const std::string& device : test::devices()) {
      const Graph g = tiny_graph({});
      TinyFile file(g);
      file.set_vector("blk.0.attn_norm.weight", 5, poison);
      const auto model = load(file, g, device);
      const auto session = Session::open(model, {0, 0, 0});
      size_t numbers = 0;
      session->forward(
          std::vector<int32_t>{1, 2, 3}, LogitsOf::last,
          [&](size_t, size_t, std::span<const float> row) {
            for (const float x : row) numbers += std::isfinite(x) ? 1 : 0;
          },
          {}, Undrawable::give);
      CHECK_MESSAGE(numbers == 0, device);
      CHECK_THROWS_AS(session->forward(std::vector<int32_t>{1}, LogitsOf::last, {}, {}), NumericError);
      CHECK(session->position() == 3);
    }
}

}  // namespace foundry
