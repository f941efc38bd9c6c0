// Mixtures of experts through the engine: same tokens, same bits; the plan is what is held; what a file lacks is
// refused by name.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "cpp/advised_files.h"
#include "cpp/devices.h"
#include "cpp/fusing_device.h"
#include "cpp/graphs.h"
#include "engine/model.h"
#include "engine/session.h"

namespace foundry {
namespace {

using namespace test;

TinyShape shape_of(uint32_t experts, uint32_t used) {
  TinyShape shape;
  shape.experts = experts, shape.used = used;
  return shape;
}

ModelOptions options_for(const std::string& device, uint32_t threads, uint32_t chunk) {
  ModelOptions options;
  options.device = {device, threads, {}};
  options.page_tokens = 8, options.chunk_tokens = chunk;
  return options;
}

std::vector<float> feed(Session& session, std::span<const int32_t> tokens) {
  std::vector<float> logits;
  session.forward(
      tokens, LogitsOf::all,
      [&](size_t, size_t, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); }, {});
  return logits;
}

std::vector<int32_t> some_tokens(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 96);
  return ids;
}

/// Whether bits depend on tokens alone there; GPUs keep to that in their strict mode.
bool is_exact(const std::string& device) { return !make_device({device, 1, {}})->info().half_tiles; }

}  // namespace

TEST_CASE("experts: same tokens, same bits, in any chunks, with any mates and threads") {
  const std::vector<int32_t> tokens = some_tokens(90, 5), other = some_tokens(61, 6);
  for (const auto& of : {std::pair{8u, 2u}, {5u, 5u}, {1u, 1u}}) {
    const Graph graph = tiny_graph(shape_of(of.first, of.second));
    const TinyFile file(graph);
    for (const std::string& device : devices()) {
      if (!is_exact(device)) continue;
      CAPTURE(device);
      CAPTURE(of.first);
      std::vector<float> expected;
      for (const uint32_t threads : {1u, 3u})
        for (const uint32_t chunk : {90u, 1u, 7u, 32u}) {
          const auto model = CompiledModel::load(file.open(), graph, options_for(device, threads, chunk), {});
          const auto session = Session::open(model, {});
          const std::vector<float> found = feed(*session, tokens);
          if (expected.empty()) expected = found;
          CHECK(std::all_of(found.begin(), found.end(), [](float x) { return std::isfinite(x); }));
          CHECK(found == expected);
        }
      const auto model = CompiledModel::load(file.open(), graph, options_for(device, 2, 16), {});
      const auto a = Session::open(model, {}), b = Session::open(model, {});
      feed(*a, std::span(tokens).first(30)), feed(*b, std::span(other).first(1));
      const auto fork = a->fork();
      const std::array items{BatchItem{a.get(), std::span(tokens).subspan(30)},
                             BatchItem{b.get(), std::span(other).subspan(1)},
                             BatchItem{fork.get(), std::span(tokens).subspan(30, 5)}};
      std::vector<float> together;
      Session::forward(*model, items, LogitsOf::last,
                       [&](size_t item, size_t, std::span<const float> row) {
                         if (item == 0) together.assign(row.begin(), row.end());
                       },
                       {});
      CHECK(std::equal(together.begin(), together.end(), expected.end() - 96));
      a->rewind(17);
      const std::vector<float> again = feed(*a, std::span(tokens).subspan(17));
      CHECK(std::equal(again.begin(), again.end(), expected.begin() + 17 * 96));
    }
  }
}

TEST_CASE("experts: the plan, made of a header, is what is held") {
  TinyShape shape = shape_of(6, 2);
  shape.ffn = 96;
  const Graph graph = tiny_graph(shape);
  const TinyFile file(graph);
  for (const std::string& device : devices()) {
    CAPTURE(device);
    const ModelOptions options = options_for(device, 2, 24);
    const PlannedBytes planned = CompiledModel::plan_file(file.open(), graph, options, {}, 0);
    const auto model = CompiledModel::load(file.open(), graph, options, {});
    const MemoryLedger& ledger = model->ledger();
    CHECK(ledger.used(MemoryUse::weights_private) == planned.loaded.weights.private_);
    CHECK(ledger.used(MemoryUse::weights_mapped) == planned.loaded.weights.mapped);
    CHECK(ledger.used(MemoryUse::workspace) == planned.loaded.workspace);
    feed(*Session::open(model, {}), some_tokens(50, 1));  // each buffer as long as it was said to be
  }
  // Panels of sixteen outputs for each expert: in Q8_0 34 bytes for 32 values, three matrices of 96 x 32 in two layers.
  const auto cpu = make_device({"cpu", 1, {}});
  WeightView view;
  view.type = DType::q8_0, view.rows = uint64_t{6} * 96, view.cols = 32, view.matrices = 6;
  const uint64_t of_one = cpu->prepared_bytes(view, WeightUse::linear) / 6;
  view.rows = 96, view.matrices = 1;
  CHECK(cpu->prepared_bytes(view, WeightUse::linear) == of_one);
  view.rows = uint64_t{6} * 17, view.matrices = 6;  // each begins a panel of its own
  CHECK(cpu->prepared_bytes(view, WeightUse::linear) == 6 * of_one / 3);
}

TEST_CASE("experts: as many are packed at once as memory has room for, with the same bits") {
  TinyShape shape = shape_of(6, 2);
  shape.ffn = 512;
  const Graph graph = tiny_graph(shape);
  const TinyFile file(graph);
  const std::vector<int32_t> tokens = some_tokens(70, 2);
  ModelOptions options = options_for("cpu", 2, 24);
  options.slab_pages = 1, options.k_type = options.v_type = DType::f32;
  const PlannedBytes whole = CompiledModel::plan_file(file.open(), graph, options, {}, 0);
  CHECK((whole.experts_kept == 6 && whole.experts_count == 6 && whole.experts % 6 == 0));
  const uint64_t of_one = whole.experts / 6;  // of each weight
  const std::vector<float> expected =
      feed(*Session::open(CompiledModel::load(file.open(), graph, options, {}), {}), tokens);
  const auto check = [&](uint64_t kept) {
    CAPTURE(kept);
    const PlannedBytes planned = CompiledModel::plan_file(file.open(), graph, options, {}, 0);
    CHECK((planned.experts_kept == kept && planned.experts == kept * of_one));
    CHECK(planned.loaded.total() == whole.loaded.total() - (6 - kept) * of_one);
    const auto model = CompiledModel::load(file.open(), graph, options, {});
    CHECK(model->ledger().used(MemoryUse::weights_private) == planned.loaded.weights.private_);
    const auto session = Session::open(model, {});
    CHECK(feed(*session, tokens) == expected);
    for (const uint32_t at : {30u, 69u}) {
      session->rewind(at);
      const std::vector<float> again = feed(*session, std::span(tokens).subspan(at));
      CHECK(std::equal(again.begin(), again.end(), expected.begin() + at * 96));
    }
  };
  for (const uint64_t kept : {1, 3, 5, 6}) {
    options.expert_cache_bytes = kept * of_one + (kept == 3 ? of_one - 1 : 0);
    check(kept);
  }
  options.expert_cache_bytes = of_one - 1;
  const std::string least = "expert_cache_bytes: expected at least " + std::to_string(of_one);
  expect_error<ValueError>([&] { CompiledModel::load(file.open(), graph, options, {}); },
                           {least, "an expert of each weight", "found " + std::to_string(of_one - 1)});
  options.expert_cache_bytes = 0;
  // Without it all of them where a context fits beside them, else three fourths of what a limit leaves beside the rest.
  const PlannedBytes context = CompiledModel::plan_file(file.open(), graph, options, {0, graph.arch.max_seq_len, 0}, 0);
  const uint64_t rest = whole.loaded.total() - whole.experts, room = context.kv_reserved + context.page_tables;
  options.memory_limit = rest + 6 * of_one + room;
  check(6);
  options.memory_limit -= 1;
  check(5);
  const auto open_whole = [&] {
    return Session::open(CompiledModel::load(file.open(), graph, options, {}), {0, graph.arch.max_seq_len, 0});
  };
  // Just above what the model takes with all of them, by a byte, a page of K and V, half a context.
  for (const uint64_t more : {uint64_t{0}, uint64_t{1}, context.page_bytes, room / 2}) {
    CAPTURE(more);
    options.memory_limit = rest + 6 * of_one + more;
    check(4);
    CHECK(feed(*open_whole(), tokens) == expected);
  }
  REQUIRE((room < of_one && room > 2 * of_one / 3));  // an expert more has room for it, and it is more than a fourth
  options.memory_limit = rest + 7 * of_one;
  check(6);
  for (const uint64_t left : {of_one + room, 2 * of_one - 1, 2 * of_one + room - 1}) {
    options.memory_limit = rest + left;
    check(1);
    CHECK(feed(*open_whole(), tokens) == expected);
  }
  options.memory_limit = rest + of_one;  // one fits, but nothing beside it
  CHECK(CompiledModel::plan_file(file.open(), graph, options, {}, 0).experts_kept == 1);
  expect_error<MemoryLimitError>(open_whole, {"needed", "available"});
  options.memory_limit = rest + of_one - 1;
  expect_error<MemoryLimitError>([&] { CompiledModel::load(file.open(), graph, options, {}); },
                                 {"needed " + std::to_string(rest + of_one)});
}

TEST_CASE("experts: of one that is missed its own bytes are read, and let go of again") {
  const Graph graph = tiny_graph(shape_of(6, 2));
  const TinyFile file(graph);
  const auto advised = std::make_shared<Advised>(file.open());
  ModelOptions options = options_for("cpu", 2, 16);
  options.expert_cache_bytes = CompiledModel::plan_file(advised, graph, options, {}, 0).experts / 3;
  const auto model = CompiledModel::load(advised, graph, options, {});
  const auto session = Session::open(model, {});
  advised->told.clear();
  feed(*session, some_tokens(40, 8));
  std::vector<std::pair<const std::byte*, uint64_t>> matrices;
  for (const WeightRef& ref : graph.weights) {
    const WeightView view = advised->view(ref.name);
    for (uint64_t m = 0; ref.experts != 0 && m < view.matrices; ++m)
      matrices.emplace_back(view.data + view.bytes / view.matrices * m, view.bytes / view.matrices);
  }
  std::vector<std::pair<const std::byte*, uint64_t>> read, let_go;
  for (const auto& [data, bytes, need] : advised->told) (need == Need::now ? read : let_go).emplace_back(data, bytes);
  CHECK(read == let_go);
  CHECK(read.size() > 2 * 3 * 6);  // two are packed at once, and 16 rows choose more
  for (const auto& one : read) CHECK(std::find(matrices.begin(), matrices.end(), one) != matrices.end());
}

TEST_CASE("experts: a tensor of another shape is refused by name, with the shapes") {
  const Graph graph = tiny_graph(shape_of(4, 2));
  const auto refuse = [&](const std::function<void(Graph&)>& damage, const std::vector<std::string>& parts) {
    Graph of_file = graph;
    damage(of_file);
    const TinyFile file(of_file);
    expect_error<ModelFormatError>([&] { CompiledModel::load(file.open(), graph, options_for("cpu", 1, 16), {}); },
                                   parts);
  };
  const auto weight = [](Graph& g, const std::string& name) -> WeightRef& {
    for (WeightRef& w : g.weights)
      if (w.name == name) return w;
    throw ValueError("no weight " + name);
  };
  const std::string up = "blk.1.ffn_up_exps.weight", down = "blk.0.ffn_down_exps.weight";
  refuse([&](Graph& g) { weight(g, up).experts = 3; },
         {"layer 1 experts up: tensor \"" + up + "\": expected [4, 64, 32], found [3, 64, 32]"});
  refuse([&](Graph& g) { weight(g, up).experts = 2, weight(g, up).rows = 128; },  // as many values
         {"expected [4, 64, 32], found [2, 128, 32]"});
  refuse([&](Graph& g) { weight(g, up).experts = 0, weight(g, up).rows = 256; },
         {"expected [4, 64, 32], found [1, 256, 32]"});
  refuse([&](Graph& g) { weight(g, down).cols = 32; },
         {"layer 0 experts down", "expected [4, 32, 64], found [4, 32, 32]"});
  refuse([&](Graph& g) { weight(g, down).name = "other"; },
         {"layer 0 experts down: the file has no tensor \"" + down + "\"; expected [4, 32, 64]"});
  refuse([&](Graph& g) { weight(g, "blk.0.ffn_gate_inp.weight").rows = 5; },
         {"layer 0 scores: tensor \"blk.0.ffn_gate_inp.weight\": expected [4, 32], found [5, 32]"});
}

TEST_CASE("experts: any fusion of the graph gives the same bits") {
  const Graph graph = tiny_graph(shape_of(4, 2));
  const TinyFile file(graph);
  static Fusion fusion;
  register_device("fusing experts", [](const DeviceOptions& options) -> std::unique_ptr<Device> {
    return std::make_unique<FusingDevice>(make_device({"cpu", options.threads, {}}), fusion);
  });
  std::vector<float> expected;
  for (const Fusion& one : {Fusion{false, false}, Fusion{true, false}, Fusion{true, true}}) {
    fusion = one;
    const auto model = CompiledModel::load(file.open(), graph, options_for("fusing experts", 1, 16), {});
    const std::vector<float> found = feed(*Session::open(model, {}), some_tokens(40, 3));
    if (expected.empty()) expected = found;
    CHECK(found == expected);
  }
}

}  // namespace foundry
