// The graph: built, verified, written and read back, fused, given buffers; and nothing that a file says makes it crash.
#include "graph/graph.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/step.h"

namespace foundry {
namespace {

constexpr uint32_t kRows = 5, kSelected = 2;

Graph tiny(uint32_t layers = 1) {
  test::TinyShape shape;
  shape.layers = layers;
  return test::tiny_graph(shape);
}

/// A legal graph of random ops over values of one width: shared inputs, biases, sums, results that nothing reads.
Graph random_graph(uint32_t seed) {
  std::mt19937 random(seed);
  Graph g;
  g.arch = {"random", 1, 2, 1, 8, 16, 16, 64};
  g.add_group({1, 1, 8, 0});
  const WeightId scale = g.weight("scale", 1, 16), bias = g.weight("bias", 1, 16);
  std::vector<ValueId> known{g.embed(g.weight("table", 16, 16), 1, "embed")};
  const auto any = [&] { return known[known.size() - 1 - random() % std::min<size_t>(known.size(), 4)]; };
  const auto grow = [&](uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) {
      const std::string name = "op " + std::to_string(g.ops.size());
      const uint32_t kind = random() % 6;
      if (kind == 0) known.push_back(g.rms_norm(any(), scale, 1e-5f, name));
      if (kind == 1) known.push_back(g.swiglu(any(), any(), name));
      if (kind == 2) known.push_back(g.add(any(), any(), name));
      if (kind < 3) continue;
      const WeightId weight = g.weight("w" + std::to_string(random() % 5), 16, 16);
      known.push_back(g.linear(any(), weight, random() % 3 == 0 ? bias : kNone, name));
      if (random() % 2 == 0) known.push_back(g.add(any(), known.back(), name + " sum"));
    }
  };
  grow(3 + random() % 20);
  known = {g.select_rows(any(), "select rows")};
  grow(1 + random() % 6);
  g.logits = any();  // ops may follow the logits
  return g;
}

std::vector<Graph> graphs() {
  std::vector<Graph> all{tiny(1), tiny(3)};
  for (uint32_t seed = 0; seed < 300; ++seed) all.push_back(random_graph(seed));
  return all;
}

Op& op(Graph& g, const std::string& name) {
  for (Op& o : g.ops)
    if (o.name == name) return o;
  throw ValueError("no op " + name);
}

/// Formulas by number: equal numbers, equal formulas. Only the operands of a sum may change places.
class Formulas {
 public:
  /// Of every K/V append, and of the logits.
  std::vector<size_t> of(const Graph& g) {
    std::vector<size_t> value(g.values.size()), effects;
    for (const Op& o : g.ops) {
      std::vector<std::string> in, w;
      for (const ValueId id : o.inputs) in.push_back("#" + std::to_string(value[static_cast<size_t>(id)]) + " ");
      for (const WeightId id : o.weights) w.push_back(id < 0 ? "-" : g.weights[static_cast<size_t>(id)].name + " ");
      for (size_t i = 0; i < o.outputs.size() && o.kind == OpKind::linear; ++i) {
        const size_t y = number("linear " + in[0] + w[i] + w[o.outputs.size() + i]);
        value[static_cast<size_t>(o.outputs[i])] = in.size() == 1 ? y : sum("#" + std::to_string(y) + " ", in[1]);
      }
      if (o.kind == OpKind::linear) continue;
      if (o.kind == OpKind::add) {
        value[static_cast<size_t>(o.outputs[0])] = sum(in[0], in[1]);
        continue;
      }
      Graph attributes;
      attributes.ops = {o};
      attributes.ops[0].name = "", attributes.ops[0].inputs = {}, attributes.ops[0].outputs = {};
      attributes.ops[0].weights = {};
      std::string formula = attributes.serialize();
      for (const std::string& part : in) formula += part;
      for (const std::string& part : w) formula += part;
      (o.outputs.empty() ? effects.emplace_back() : value[static_cast<size_t>(o.outputs[0])]) = number(formula);
    }
    effects.push_back(value[static_cast<size_t>(g.logits)]);
    return effects;
  }

 private:
  size_t number(const std::string& formula) { return known_.emplace(formula, known_.size()).first->second; }
  size_t sum(const std::string& a, const std::string& b) { return number("add " + std::min(a, b) + std::max(a, b)); }
  std::map<std::string, size_t> known_;
};

/// Runs the ops on marks instead of numbers: whatever an op writes takes its bytes from all others. Empty, or what went wrong.
std::string run_on_marks(const Graph& g, const BufferPlan& plan) {
  const auto begin = [&](ValueId v) { return plan.offsets[static_cast<size_t>(v)]; };
  const auto end = [&](ValueId v) {
    const Value& value = g.values[static_cast<size_t>(v)];
    return begin(v) + uint64_t{value.rows == Rows::tokens ? kRows : kSelected} * value.width * sizeof(float);
  };
  std::vector<ValueId> intact;
  const auto whole = [&](ValueId v) { return std::find(intact.begin(), intact.end(), v) != intact.end(); };
  size_t head = 0;
  while (g.ops[head].kind != OpKind::select_rows) ++head;
  for (size_t i = 0, runs = 0; runs < 3; i = i + 1 == g.ops.size() ? ++runs, head : i + 1) {  // the head, three times
    const Op& o = g.ops[i];
    for (const ValueId in : o.inputs)
      if (!whole(in)) return o.name + " reads value " + std::to_string(in) + " after it was overwritten";
    for (const ValueId out : o.outputs) {
      if (begin(out) % 64 != 0 || end(out) > plan.bytes) return o.name + " writes outside the arena";
      std::erase_if(intact, [&](ValueId v) { return begin(v) < end(out) && begin(out) < end(v); });
      intact.push_back(out);
    }
    for (const ValueId v : o.inputs)  // devices write while they read
      if (!whole(v)) return o.name + " writes over its input";
    for (const ValueId v : o.outputs)
      if (!whole(v)) return o.name + " writes two outputs to one place";
    if (i + 1 == g.ops.size() && !whole(g.logits)) return "the logits are overwritten";
  }
  return "";
}

/// The way of a graph from outside; false where it is refused with the error for a file's faults.
bool accepted(const std::string& text) {
  Graph g;
  try {
    g = Graph::parse(text);
    verify(g);
  } catch (const ModelFormatError&) {
    return false;
  }
  const Graph fused = fuse(g);
  verify(fused);  // what is legal stays legal
  plan_buffers(fused, kRows, kSelected);
  return true;
}

template <class F>
void refused(const F& function, const std::vector<std::string>& parts) {
  try {
    function();
    FAIL("accepted, expected: " << parts[0]);
  } catch (const ModelFormatError& error) {
    for (const std::string& part : parts)
      CHECK_MESSAGE(std::string(error.what()).find(part) != std::string::npos, error.what(), " lacks ", part);
  }
}

}  // namespace

TEST_CASE("graph: builders derive widths and rows, and refuse ids that are not there") {
  Graph g = tiny();
  verify(g);
  const auto value = [&](const std::string& name) { return g.values[static_cast<size_t>(op(g, name).outputs[0])]; };
  CHECK((value("embed").width == 32 && value("layer 0 k").width == 16 && value("layer 0 swiglu").width == 64));
  CHECK((value("output_norm").rows == Rows::selected && value("output").width == 96));
  CHECK(op(g, "layer 0 attention").head_dim == 8);
  CHECK(op(g, "output").weights[0] == op(g, "embed").weights[0]);  // one name, one weight
  CHECK(g.weight("token_embd.weight", 96, 32) == 0);
  for (const int32_t id : {-1, 1000, INT32_MAX}) {
    CHECK_THROWS_AS(g.rms_norm(id, 0, 1e-5f, "x"), ValueError);
    CHECK_THROWS_AS(g.linear(0, id, kNone, "x"), ValueError);
    CHECK_THROWS_AS(g.embed(id, 1, "x"), ValueError);
    CHECK_THROWS_AS(g.select_rows(id, "x"), ValueError);
  }
  CHECK(g.serialize() == tiny().serialize());  // a refusal leaves nothing behind
}

TEST_CASE("graph: verify names the op, what it expected and what it found") {
  struct Fault {
    std::function<void(Graph&)> make;
    std::vector<std::string> parts;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Fault faults[] = {
      {[](Graph& g) { g.weights[2].rows = 24; },
       {"layer 0 q (linear)", "\"blk.0.attn_q.weight\": expected [32, 32], found [24, 32]"}},
      {[](Graph& g) { g.weights[0].cols = 16; }, {"embed (embed)", "expected [96, 32], found [96, 16]"}},
      {[](Graph& g) { g.weights[1].cols = 31; }, {"attn_norm (rms_norm)", "expected [1, 32], found [1, 31]"}},
      {[](Graph& g) { op(g, "layer 0 v").inputs = {99}; }, {"layer 0 v (linear): input value", "found 99"}},
      {[](Graph& g) { op(g, "layer 0 v").inputs = {-1}; }, {"layer 0 v (linear): input value", "found -1"}},
      {[](Graph& g) { op(g, "layer 0 v").outputs = {99}; }, {"layer 0 v (linear): output value", "found 99"}},
      {[](Graph& g) { op(g, "layer 0 v").weights[1] = 99; }, {"layer 0 v (linear): weight", "below 11, found 99"}},
      {[](Graph& g) { op(g, "layer 0 v").weights[0] = kNone; }, {"layer 0 v (linear): a weight is missing"}},
      {[](Graph& g) { op(g, "layer 0 q").inputs = {g.logits}; }, {"layer 0 q", "read before an op defines it"}},
      {[](Graph& g) { op(g, "layer 0 v").outputs = {0}; }, {"layer 0 v", "value 0 is defined twice"}},
      {[](Graph& g) { op(g, "layer 0 swiglu").inputs.pop_back(); }, {"swiglu): inputs: expected 2, found 1"}},
      {[](Graph& g) { op(g, "layer 0 q").inputs = {1, 1, 1}; }, {"inputs: expected 1 to 2, found 3"}},
      {[](Graph& g) { op(g, "layer 0 q").outputs.clear(); }, {"outputs: expected at least 1, found 0"}},
      {[](Graph& g) { op(g, "layer 0 q").weights.pop_back(); }, {"weights: expected 2, found 1"}},
      {[](Graph& g) { op(g, "layer 0 ffn residual").inputs[0] = op(g, "layer 0 gate").outputs[0]; },
       {"layer 0 ffn residual (add): expected [tokens, 64], found [tokens, 32]"}},
      {[](Graph& g) {
         op(g, "layer 0 q").inputs.push_back(op(g, "layer 0 attn_norm").outputs[0]), g.values[2].width = 8;
       },
       {"layer 0 q (linear)", "[32, 32]"}},
      {[](Graph& g) { op(g, "layer 0 rope q").n_heads = 3; }, {"rope): expected a width of 24, found [tokens, 32]"}},
      {[](Graph& g) { op(g, "layer 0 rope q").rot_dim = 7; }, {"rot_dim: expected even, from 2 to 8, found 7"}},
      {[](Graph& g) { op(g, "layer 0 rope q").rot_dim = 10; }, {"rot_dim", "found 10"}},
      {[](Graph& g) { op(g, "layer 0 rope q").rope_style = 2; }, {"style: expected 0 or 1, found 2"}},
      {[=](Graph& g) { op(g, "layer 0 rope q").rope_base = nan; }, {"base: expected above 0, found nan"}},
      {[=](Graph& g) { op(g, "layer 0 ffn_norm").eps = nan; }, {"layer 0 ffn_norm (rms_norm): eps"}},
      {[](Graph& g) { op(g, "layer 0 kv_append").layer = 1; }, {"layer 1 of group 0 is not in the graph"}},
      {[](Graph& g) { op(g, "layer 0 attention").group = 7; }, {"attention): layer 0 of group 7"}},
      {[](Graph& g) { op(g, "layer 0 attention").window = 4; }, {"window: expected the group's, 0, found 4"}},
      {[](Graph& g) { g.groups[0].n_kv_heads = 4; }, {"kv_append): expected a width of 32, found [tokens, 16]"}},
      {[](Graph& g) { g.groups[0].head_dim = 12; }, {"head_dim that is a multiple of 8, found 1, 2, 12"}},
      {[](Graph& g) { g.kv_append(3, 4, 0, 0, "again"), std::rotate(g.ops.begin(), g.ops.end() - 1, g.ops.end()); },
       {"again (kv_append): value 3 is read before"}},
      {[](Graph& g) { g.ops.insert(g.ops.begin() + 8, op(g, "layer 0 kv_append")); }, {"appended twice"}},
      {[](Graph& g) { std::erase_if(g.ops, [](const Op& o) { return o.kind == OpKind::kv_append; }); },
       {"layer 0 attention (attention): expected the layer's kv_append before it, found none"}},
      {[](Graph& g) { g.select_rows(g.logits, "again"); }, {"again (select_rows): expected before select_rows"}},
      {[](Graph& g) {
         std::erase_if(g.ops, [](const Op& o) { return o.name >= "output" && o.name < "p"; }), g.logits = 0;
       },
       {"logits", "found value 0"}},
      {[](Graph& g) { op(g, "output_norm").inputs = {0}; }, {"output_norm", "value 0 is read before"}},
      {[](Graph& g) { g.ops.resize(3); }, {"expected one select_rows, found 0"}},
      {[](Graph& g) { g.arch.vocab_size = 95; }, {"expected [95, 32], found [96, 32]"}},
      {[](Graph& g) { g.logits = op(g, "output_norm").outputs[0]; }, {"expected [selected, 96], found [selected, 32]"}},
      {[](Graph& g) { g.logits = 10000; }, {"found value 10000"}},
      {[](Graph& g) { g.arch.max_seq_len = 0; }, {"max_seq_len"}},
      {[](Graph& g) { g = random_graph(1), g.groups.clear(); }, {"at least one layer group"}},
      {[](Graph& g) { g = test::tiny_graph({96, 32, 1, 3, 2, 8, 64, 300}); },
       {"layer 0 attention (attention): n_heads: expected a multiple of n_kv_heads, 2, found 3"}},
  };
  for (const Fault& fault : faults) {
    Graph g = tiny();
    fault.make(g);
    refused([&] { verify(g); }, fault.parts);
  }
}

TEST_CASE("graph: what is written comes back, to the last bit") {
  for (Graph& g : std::vector<Graph>{tiny(3), fuse(tiny(2)), random_graph(3), Graph{}}) {
    g.arch.name = "a name with spaces, \xc3\xa9 and in 0 w 1 # signs";
    g.add_group({UINT32_MAX, 1, 2, 3});
    Op odd;
    odd.name = "";
    for (const float x : {0.0f, -0.0f, 0x1p-149f, 0.1f, -std::numeric_limits<float>::max(), INFINITY}) {
      odd.eps = x, odd.scale = -x, odd.rope_base = x;
      g.ops.push_back(odd);
    }
    const std::string text = g.serialize();
    const Graph back = Graph::parse(text);
    CHECK(back.serialize() == text);
    REQUIRE(back.ops.size() == g.ops.size());
    for (size_t i = 0; i < g.ops.size(); ++i) {
      const Op &a = g.ops[i], &b = back.ops[i];
      CHECK((a.name == b.name && a.inputs == b.inputs && a.outputs == b.outputs && a.weights == b.weights));
      CHECK(std::memcmp(&a.eps, &b.eps, sizeof(Op) - offsetof(Op, eps)) == 0);
    }
    CHECK((back.arch.name == g.arch.name && back.arch.max_seq_len == g.arch.max_seq_len && back.logits == g.logits));
    CHECK((back.groups.back().n_layers == UINT32_MAX && back.groups.back().window == 3));
    REQUIRE((back.values.size() == g.values.size() && back.weights.size() == g.weights.size()));
    for (size_t i = 0; i < g.values.size(); ++i)
      CHECK((back.values[i].width == g.values[i].width && back.values[i].rows == g.values[i].rows));
  }
  for (const char* name : {"a\nb", "a\"b", "a\\b"}) {
    Graph g;
    g.arch.name = name;
    CHECK_THROWS_AS(g.serialize(), ModelFormatError);
  }
}

TEST_CASE("graph: a damaged text is refused with its line") {
  const std::string head = "foundry-graph 1\n";
  const std::pair<std::string, std::string> texts[] = {
      {"", "after line 0"},
      {"foundry-graph 2\n", "line 1: expected version 1, found 2"},
      {"graph 1\n", "line 1: expected foundry-graph, found graph"},
      {"foundry-graph 1 1\n", "line 1: expected nothing more"},
      {head, "after line 1 without logits"},
      {head + "\n", "line 2: ends too early"},
      {head + "logits 0\nlogits 0\n", "line 3: expected nothing after logits"},
      {head + "logits -2\n", "line 2: an id out of range"},
      {head + "logits 2147483648\n", "line 2: an id out of range"},
      {head + "logits 99999999999999999999\n", "line 2: expected a whole number"},
      {head + "logits 1x\n", "line 2: expected a whole number, found 1x"},
      {head + "value width 4294967296 tokens\n", "width: expected 0 to 4294967295"},
      {head + "value width -1 tokens\n", "width: expected 0 to 4294967295, found -1"},
      {head + "value width 1 rows\n", "expected tokens or selected, found rows"},
      {head + "weight \"a rows 1 cols 1\n", "line 2: a name without its closing quote"},
      {head + "weight a rows 1 cols 1\n", "expected a quoted name, found a"},
      {head + "op mul \"x\"\n", "no op of the name mul"},
      {head + "op add \"x\" in 1 -2\n", "in: an id out of range, -2"},
      {head + "op add \"x\" in 1 out 2 w eps much\n", "eps: expected a number, found much"},
      {head + "poetry\n", "line 2: expected arch, group"},
  };
  for (const auto& [text, part] : texts) refused([&] { Graph::parse(text); }, {part});
}

TEST_CASE("graph: hostile bytes are refused or harmless, wherever they are") {
  for (const std::string& text : {tiny().serialize(), fuse(tiny()).serialize()}) {
    CHECK(accepted(text));
    for (size_t n = 0; n + 1 < text.size(); ++n) CHECK_FALSE(accepted(text.substr(0, n)));
    size_t refusals = 0;
    for (size_t at = 0; at < text.size(); ++at)
      for (const char byte : {'0', '9', '-', ' ', '"', '\n', '\0', '\xff'}) {
        std::string damaged = text;
        damaged[at] = byte;
        refusals += accepted(damaged) ? 0 : 1;
      }
    CHECK(refusals > 4 * text.size());
    // Whole words: numbers at the ends of their ranges, lines twice, lines away.
    std::mt19937 random(7);
    const char* words[] = {"4294967295", "2147483647", "-1", "0", "nan", "inf", "-0x1p+127", "selected", "\"\"", "1e9"};
    for (int round = 0; round < 2000; ++round) {
      std::string damaged = text;
      for (uint32_t n = 1 + random() % 3; n > 0; --n) {
        const size_t from = damaged.find(random() % 4 == 0 ? '\n' : ' ', random() % damaged.size());
        if (from == std::string::npos) continue;
        const size_t to = std::min(damaged.find_first_of(" \n", from + 1), damaged.size());
        if (random() % 4 == 0)
          damaged.insert(from, damaged.substr(from, random() % 120));
        else if (random() % 4 == 0)
          damaged.erase(from, random() % 120);
        else
          damaged.replace(from + 1, to - from - 1, words[random() % std::size(words)]);
      }
      accepted(damaged);
    }
  }
}

TEST_CASE("graph: fused graphs verify, and say the same in fewer ops") {
  size_t before = 0, after = 0;
  for (const Graph& g : graphs()) {
    verify(g);
    const Graph fused = fuse(g);
    CHECK_NOTHROW(verify(fused));
    Formulas formulas;
    CHECK(formulas.of(g) == formulas.of(fused));
    CHECK(fuse(fused).serialize() == fused.serialize());
    before += g.ops.size(), after += fused.ops.size();
  }
  CHECK(after < before);
  const Graph g = tiny(), fused = fuse(g);
  CHECK(fused.ops.size() == g.ops.size() - 5);  // q + k + v, gate + up, two residuals
  CHECK(fused.ops[2].name == "layer 0 q + layer 0 k + layer 0 v");
}

TEST_CASE("graph: an add is folded only where nothing else needs the linear's result") {
  for (const int reader : {0, 1, 2, 3}) {
    CAPTURE(reader);
    Graph g = random_graph(1);
    g.ops.clear();
    const ValueId x = g.embed(g.weight("table", 16, 16), 1, "embed");
    const ValueId s = g.select_rows(x, "select rows"), y = g.linear(s, g.weight("w", 16, 16), kNone, "linear");
    g.logits = reader == 3 ? g.add(y, y, "add") : g.add(s, y, "add");
    if (reader == 1) g.logits = g.swiglu(g.logits, y, "swiglu");
    if (reader == 2) g.logits = y;
    verify(g);
    CHECK(fuse(g).ops.size() == g.ops.size() - (reader == 0 ? 1 : 0));
  }
}

TEST_CASE("graph: fusing changes no bit of the logits") {
  const Graph graphs[] = {tiny(2), fuse(tiny(2))};
  const test::TinyFile file(graphs[0]);
  const std::vector<int32_t> tokens{3, 1, 4, 1, 5}, rows{0, 4};
  for (const std::string& name : test::devices()) {
    std::vector<float> logits[2];
    for (size_t i = 0; i < 2; ++i) {
      const auto device = make_device({name, 2, {}});
      MemoryLedger ledger(UINT64_MAX);
      WeightStore weights(file.open(), graphs[i]);
      weights.load(*device, ledger, {});
      PagePool pool(*device, ledger, {2, 2, 8, 0, 0, 8, 8}, 1);
      PageTable table(pool);
      table.grow(1);
      SequenceParams sequence{};
      sequence.pages = table.addresses_at();
      sequence.n_pages = 1, sequence.max_seq_len = 8;
      StepRunner runner(*device, graphs[i], weights, {pool.geometry().params()}, kRows, kSelected);
      runner.hold_workspace();
      CHECK(runner.held_bytes() == runner.workspace_bytes());
      const RowRun run{{&sequence, 1}, tokens, 0};
      runner.run_body({&run, 1}, {});
      const float* out = runner.run_head(rows);
      logits[i].assign(out, out + rows.size() * 96);
    }
    size_t different = 0;
    for (size_t i = 0; i < logits[0].size(); ++i)
      if (logits[0][i] != logits[1][i]) ++different;
    CHECK_MESSAGE(different == 0, name);
  }
}

TEST_CASE("graph: what one launch reads and writes has places of its own") {
  size_t launches = 0;
  for (Graph g : graphs()) {
    g = fuse(g);
    chain(g);
    const BufferPlan plan = plan_buffers(g, kRows, kSelected);
    for (size_t i = 0; i < g.ops.size(); ++i) {
      if (!g.ops[i].with_next) continue;
      ++launches;
      std::set<ValueId> values;
      for (size_t at = i; at == i || g.ops[at - 1].with_next; ++at)
        for (const auto& list : {g.ops[at].inputs, g.ops[at].outputs}) values.insert(list.begin(), list.end());
      for (const ValueId a : values)
        for (const ValueId b : values) {
          const Value& value = g.values[static_cast<size_t>(a)];
          const uint64_t from = plan.offsets[static_cast<size_t>(a)], at = plan.offsets[static_cast<size_t>(b)];
          const uint64_t bytes = uint64_t{value.rows == Rows::tokens ? kRows : kSelected} * value.width * sizeof(float);
          CHECK((a == b || at < from || at >= from + bytes));
        }
    }
  }
  CHECK(launches > 4);
}

TEST_CASE("graph: no buffer is overwritten while its value is needed") {
  for (const Graph& g : graphs())
    for (const Graph& either : {g, fuse(g)}) {
      const BufferPlan plan = plan_buffers(either, kRows, kSelected);
      CHECK(run_on_marks(either, plan) == "");
    }
}

TEST_CASE("graph: the arena does not grow with the layers") {
  CHECK(plan_buffers(tiny(12), kRows, kSelected).bytes == plan_buffers(tiny(2), kRows, kSelected).bytes);
  const BufferPlan plan = plan_buffers(tiny(2), 4096, 16);
  CHECK(plan.bytes <= uint64_t{4096} * (3 * 32 + 2 * 64) * sizeof(float));  // x, and what one layer needs at once
  BufferPlan broken = plan_buffers(tiny(2), kRows, kSelected);
  std::fill(broken.offsets.begin(), broken.offsets.end(), 0);
  CHECK(run_on_marks(tiny(2), broken) != "");  // the check above can fail
}

}  // namespace foundry
