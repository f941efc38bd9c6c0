// Fused graphs say what the graphs that they were made of say, with the same bits; and every value has a place of its
// own as long as it is needed.
#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <map>
#include <set>

#include "cpp/devices.h"
#include "cpp/fusing_device.h"
#include "cpp/graphs.h"
#include "engine/step.h"

namespace foundry {
namespace {

using namespace test;

constexpr Fusion kAll{true, true, true};
constexpr Fusion kFusions[] = {{false, false}, {true, false}, {false, true}, {true, true}, {false, false, true}, kAll};

/// What an op of the tiny graph gives.
ValueId op_value(const std::string& name) {
  Graph g = tiny();
  return op(g, name).outputs[0];
}

/// Formulas by number: equal numbers, equal formulas. Only the operands of a sum may change places.
class Formulas {
 public:
  /// Of every K/V append, and of the logits.
  std::vector<size_t> of(const Graph& g) {
    std::vector<size_t> value(g.values.size()), effects;
    for (const Op& o : g.ops) {
      std::vector<std::string> in, w;
      for (const ValueId id : o.inputs) in.push_back(text(value[static_cast<size_t>(id)]));
      for (const WeightId id : o.weights) w.push_back(id < 0 ? "-" : g.weights[static_cast<size_t>(id)].name + " ");
      if (const auto* fused = o.as<FusedLinearOp>()) {
        const size_t n = fused->n_linears;
        std::string x = in[0];
        if (fused->norm) x = text(number(of_kind({*fused->norm, "", {}, {}, {}, {}}) + x + w[2 * n]));
        std::vector<size_t> y;
        for (size_t i = 0; i < n; ++i)
          y.push_back(number(of_kind({LinearOp{}, "", {}, {}, {}, {}}) + x + w[i] + w[n + i]));
        if (fused->residual) y[0] = sum(text(y[0]), in[1]);
        const Op::Kind gate = fused->gate == FusedLinearOp::Gate::swiglu ? Op::Kind(SwigluOp{}) : Op::Kind(GegluOp{});
        if (fused->gate != FusedLinearOp::Gate::none)
          y = {number(of_kind({gate, "", {}, {}, {}, {}}) + text(y[0]) + text(y[1]))};
        for (size_t i = 0; i < y.size(); ++i) value[static_cast<size_t>(o.outputs[i])] = y[i];
        continue;
      }
      if (const auto* fused = o.as<FusedAppendOp>()) {
        const size_t q = number(of_kind({fused->q, "", {}, {}, {}, {}}) + in[0] + w[0]);
        const size_t k = number(of_kind({fused->k, "", {}, {}, {}, {}}) + in[1] + w[0]);
        effects.push_back(number(of_kind({fused->append, "", {}, {}, {}, {}}) + text(k) + in[2]));
        value[static_cast<size_t>(o.outputs[0])] = q;
        continue;
      }
      if (o.is<AddOp>()) {
        value[static_cast<size_t>(o.outputs[0])] = sum(in[0], in[1]);
        continue;
      }
      std::string formula = of_kind(o);
      for (const std::string& part : in) formula += part;
      for (const std::string& part : w) formula += part;
      if (o.outputs.empty()) effects.push_back(number(formula));
      for (size_t i = 0; i < o.outputs.size(); ++i)
        value[static_cast<size_t>(o.outputs[i])] = number(i == 0 ? formula : formula + "'");
    }
    effects.push_back(value[static_cast<size_t>(g.logits)]);
    return effects;
  }

 private:
  static std::string text(size_t formula) { return "#" + std::to_string(formula) + " "; }
  /// Kind and attributes.
  static std::string of_kind(const Op& o) {
    Graph alone;
    alone.ops = {{o.kind, "", {}, {}, {}, {}}};
    return alone.serialize();
  }
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
  while (!g.ops[head].is<SelectRowsOp>()) ++head;
  for (size_t i = 0, runs = 0; runs < 3; i = i + 1 == g.ops.size() ? ++runs, head : i + 1) {  // the head, three times
    const Op& o = g.ops[i];
    for (const ValueId in : o.inputs)
      if (!whole(in)) return o.name + " reads value " + std::to_string(in) + " after it was overwritten";
    std::vector<ValueId> writes = o.rooms;
    writes.insert(writes.end(), o.outputs.begin(), o.outputs.end());
    for (const ValueId out : writes) {
      if (begin(out) % 64 != 0 || end(out) > plan.bytes) return o.name + " writes outside the arena";
      std::erase_if(intact, [&](ValueId v) { return begin(v) < end(out) && begin(out) < end(v); });
      intact.push_back(out);
    }
    for (const ValueId v : o.inputs)  // devices write while they read
      if (!whole(v)) return o.name + " writes over its input";
    for (const ValueId v : writes)
      if (!whole(v)) return o.name + " writes two outputs to one place";
    if (i + 1 == g.ops.size() && !whole(g.logits)) return "the logits are overwritten";
  }
  return "";
}

}  // namespace

TEST_CASE("fusion: fused graphs verify, and say the same in fewer ops") {
  size_t before = 0, linears = 0, all = 0;
  for (const Graph& g : graphs()) {
    verify(g);
    Formulas formulas;
    const auto expected = formulas.of(g);
    for (const Fusion& fusion : kFusions) {
      const Graph fused = fuse(g, fusion);
      CHECK_NOTHROW(verify(fused));
      CHECK(formulas.of(fused) == expected);
      CHECK_THROWS_AS(fuse(fused, fusion), ValueError);
    }
    before += g.ops.size(), linears += fuse(g, {true, false}).ops.size(), all += fuse(g, {true, true}).ops.size();
  }
  CHECK((linears < before && all < linears));
  const Graph g = tiny(), fused = fuse(g, {true, false}), whole = fuse(g, {true, true});
  CHECK(fused.ops.size() == g.ops.size() - 5);  // q + k + v, gate + up, two residuals
  CHECK(fused.ops[2].name == "layer 0 q + layer 0 k + layer 0 v");
  CHECK(whole.ops.size() == fused.ops.size() - 4);  // three norms, a gate
  CHECK(whole.ops[1].name == "layer 0 attn_norm + layer 0 q + layer 0 k + layer 0 v");
  const Graph appends = fuse(g, kAll);
  CHECK(appends.ops.size() == whole.ops.size() - 2);  // two ropes and an append
  CHECK(appends.ops[2].name == "layer 0 rope q + layer 0 rope k + layer 0 kv_append");
  CHECK(fuse(g, {false, false}).ops.size() == g.ops.size());
}

TEST_CASE("fusion: a fused op that is wrong is our fault, and named") {
  struct Fault {
    std::function<void(Op&, FusedLinearOp&)> make;
    std::string part;
  };
  const auto check = [](const std::string& name, const std::vector<Fault>& faults) {
    for (const Fault& fault : faults) {
      Graph g = fuse(tiny(), {true, true});
      Op& o = op(g, name);
      fault.make(o, *o.as<FusedLinearOp>());
      expect_error<ConsistencyError>([&] { verify(g); }, {"fused graph: " + name + " (fused_linear): " + fault.part});
    }
  };
  const ValueId q = op_value("layer 0 q"), gate = op_value("layer 0 gate"), normed = op_value("layer 0 attn_norm");
  const std::string norm = "layer 0 attn_norm + layer 0 q + layer 0 k + layer 0 v";
  check(norm, {
                  {[](Op&, FusedLinearOp& f) { f.n_linears = 0; }, "linears: expected at least 1, found 0"},
                  {[](Op&, FusedLinearOp& f) { f.n_linears = 2; }, "outputs: expected 2, found 3"},
                  {[](Op& o, FusedLinearOp&) { o.weights.pop_back(); }, "weights: expected 7, found 6"},
                  {[](Op&, FusedLinearOp& f) { f.norm.reset(); }, "weights: expected 6, found 7"},
                  {[](Op&, FusedLinearOp& f) { f.norm->eps = 0; }, "eps: expected a number above 0"},
                  {[](Op& o, FusedLinearOp&) { o.rooms.clear(); }, "values in between: expected 1, found 0"},
                  {[=](Op& o, FusedLinearOp&) { o.rooms[0] = q; }, "value " + std::to_string(q) + " is defined twice"},
                  {[=](Op& o, FusedLinearOp&) { o.inputs[0] = normed; },
                   "value " + std::to_string(normed) + " is read before an op defines it"},
                  {[](Op& o, FusedLinearOp&) { o.weights[6] = o.weights[0]; }, "weight \"blk.0.attn_q.weight\""},
                  {[](Op& o, FusedLinearOp&) { o.weights[1] = o.weights[0]; }, "weight \"blk.0.attn_q.weight\""},
                  {[](Op& o, FusedLinearOp& f) { f.residual = true, o.inputs.push_back(0); },
                   "a residual: expected of 1 linear, found of 3"},
              });
  check("layer 0 ffn_norm + layer 0 gate + layer 0 up + layer 0 swiglu",
        {
            {[](Op&, FusedLinearOp& f) { f.gate = FusedLinearOp::Gate::none; }, "outputs: expected 2, found 1"},
            {[](Op& o, FusedLinearOp&) { o.rooms.pop_back(); }, "values in between: expected 3, found 2"},
            {[=](Op& o, FusedLinearOp&) { o.rooms[2] = gate; }, "value " + std::to_string(gate) + " is defined twice"},
            {[](Op& o, FusedLinearOp& f) { f.residual = true, o.inputs.push_back(0); },
             "a residual: expected of 1 linear, found of 2"},
            {[](Op&, FusedLinearOp& f) { f.n_linears = 1; }, "a gate: expected of 2 linears, found of 1"},
            {[](Op& o, FusedLinearOp&) { o.weights[2] = o.weights[4]; }, "weight \"blk.0.ffn_norm.weight\""},
        });
  check("layer 0 o + layer 0 attention residual",
        {{[=](Op& o, FusedLinearOp&) { o.inputs[1] = q, o.inputs.resize(3); }, "inputs: expected 2, found 3"},
         {[](Op& o, FusedLinearOp&) { o.inputs.pop_back(); }, "inputs: expected 2, found 1"}});
  Graph g = fuse(tiny(), {});
  g.fused = false;  // as if a file had them
  expect_error<ModelFormatError>([&] { verify(g); }, {"(fused_linear): expected in a fused graph alone"});
}

TEST_CASE("fusion: a fused append that is wrong is our fault, and named") {
  const std::string name = "layer 0 rope q + layer 0 rope k + layer 0 kv_append";
  const ValueId k = op_value("layer 0 k");
  const std::vector<std::pair<std::function<void(Op&, FusedAppendOp&)>, std::string>> faults{
      {[](Op& o, FusedAppendOp&) { o.rooms.clear(); }, "values in between: expected 1, found 0"},
      {[](Op& o, FusedAppendOp&) { o.inputs.pop_back(); }, "inputs: expected 3, found 2"},
      {[](Op& o, FusedAppendOp&) { o.weights.clear(); }, "weights: expected 1, found 0"},
      {[=](Op& o, FusedAppendOp&) { o.rooms[0] = k; }, "value " + std::to_string(k) + " is defined twice"},
      {[](Op&, FusedAppendOp& f) { f.k.base = 0; }, "base: expected a number above 0"},
      {[](Op&, FusedAppendOp& f) { f.q.rot_dim = 3; }, "rot_dim: expected even"},
      {[](Op&, FusedAppendOp& f) { f.k.n_heads *= 2, f.k.head_dim /= 2, f.k.rot_dim = 2; },
       "head_dim: expected the group's"},
      {[](Op&, FusedAppendOp& f) { f.append.layer = 9; }, "layer"},
  };
  for (const auto& [make, part] : faults) {
    Graph g = fuse(tiny(), kAll);
    Op& o = op(g, name);
    make(o, *o.as<FusedAppendOp>());
    expect_error<ConsistencyError>([&] { verify(g); }, {"fused graph: " + name + " (fused_append): ", part});
  }
  Graph g = fuse(tiny(), kAll);
  g.fused = false;
  expect_error<ModelFormatError>([&] { verify(g); }, {"expected in a fused graph alone"});
}

TEST_CASE("fusion: ropes are folded only where they turn alike and nothing else reads the turned k") {
  const auto count = [](const std::function<void(Graph&)>& change) {
    Graph g = tiny();
    change(g);
    verify(g);
    return g.ops.size() - fuse(g, {false, false, true}).ops.size();
  };
  const auto rope = [](Graph& g, const char* name) -> RopeOp& { return *op(g, name).as<RopeOp>(); };
  CHECK(count([](Graph&) {}) == 2);
  CHECK(count([&](Graph& g) { rope(g, "layer 0 rope q").temperature = 1; }) == 2);  // K's may stay cold
  CHECK(count([&](Graph& g) { rope(g, "layer 0 rope q").base = 7; }) == 0);
  CHECK(count([&](Graph& g) { rope(g, "layer 0 rope k").style ^= 1; }) == 0);
  CHECK(count([&](Graph& g) { op(g, "layer 0 kv_append").inputs[1] = op(g, "layer 0 rope k").outputs[0]; }) == 0);
}

TEST_CASE("fusion: an add is folded only where nothing else needs the linear's result") {
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
    CHECK(fuse(g, {}).ops.size() == g.ops.size() - (reader == 0 ? 1 : 0));
  }
}

TEST_CASE("fusion: fusing changes no bit of the logits, nor of the hidden states before them") {
  const Fusion all{true, true};
  const Graph graphs[] = {tiny(2), fuse(tiny(2), {}), fuse(tiny(2), all)};
  const test::TinyFile file(graphs[0]);
  const std::vector<int32_t> tokens{3, 1, 4, 1, 5}, rows{0, 4};
  for (const std::string& name : test::devices()) {
    std::vector<float> logits[3], hidden[3];
    for (size_t i = 0; i < 3; ++i) {
      auto device = make_device({name, 2, {}});
      if (i == 2) device = std::make_unique<test::FusingDevice>(std::move(device), all);
      MemoryLedger ledger(UINT64_MAX);
      WeightStore weights(file.open(), graphs[0]);
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
      REQUIRE(runner.width(Gives::hidden) == 32);
      out = runner.run_head(rows, Gives::hidden);
      hidden[i].assign(out, out + rows.size() * 32);
    }
    for (size_t one = 1; one < 3; ++one) {
      CHECK_MESSAGE(logits[0] == logits[one], name);
      CHECK_MESSAGE(hidden[0] == hidden[one], name);
    }
  }
}

TEST_CASE("fusion: what one call reads and writes has places of its own") {
  size_t calls = 0;
  for (Graph g : graphs()) {
    g = fuse(g, kAll);
    const BufferPlan plan = plan_buffers(g, kRows, kSelected);
    for (const Op& o : g.ops) {
      if (o.rooms.empty()) continue;
      ++calls;
      std::set<ValueId> values;
      for (const auto& list : {o.inputs, o.outputs, o.rooms}) values.insert(list.begin(), list.end());
      for (const ValueId a : values)
        for (const ValueId b : values) {
          const Value& value = g.values[static_cast<size_t>(a)];
          const uint64_t from = plan.offsets[static_cast<size_t>(a)], at = plan.offsets[static_cast<size_t>(b)];
          const uint64_t bytes = uint64_t{value.rows == Rows::tokens ? kRows : kSelected} * value.width * sizeof(float);
          CHECK((a == b || at < from || at >= from + bytes));
        }
    }
  }
  CHECK(calls > 4);
}

TEST_CASE("fusion: no buffer is overwritten while its value is needed") {
  for (const Graph& g : graphs())
    for (const Graph& either : {g, fuse(g, {}), fuse(g, kAll)}) {
      const BufferPlan plan = plan_buffers(either, kRows, kSelected);
      CHECK(run_on_marks(either, plan) == "");
    }
}

TEST_CASE("fusion: the arena does not grow with the layers") {
  CHECK(plan_buffers(tiny(12), kRows, kSelected).bytes == plan_buffers(tiny(2), kRows, kSelected).bytes);
  const BufferPlan plan = plan_buffers(tiny(2), 4096, 16);
  CHECK(plan.bytes <= uint64_t{4096} * (3 * 32 + 2 * 64) * sizeof(float));  // x, and what one layer needs at once
  BufferPlan broken = plan_buffers(tiny(2), kRows, kSelected);
  std::fill(broken.offsets.begin(), broken.offsets.end(), 0);
  CHECK(run_on_marks(tiny(2), broken) != "");  // the check above can fail
}

}  // namespace foundry
