// The graph: built, verified, written and read back; and nothing that a file says makes it crash.
#include "graph/graph.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "cpp/graphs.h"
#include "engine/step.h"

namespace foundry {
namespace {

using namespace test;

/// The attributes of an op, to the last bit.
std::vector<uint32_t> attributes(const Op& o) {
  std::vector<uint32_t> bits;
  std::visit(
      [&](const auto& kind) {
        using Kind = std::decay_t<decltype(kind)>;
        if constexpr (!std::is_same_v<Kind, FusedLinearOp> && !std::is_same_v<Kind, FusedAppendOp>)
          kind.fields(kind,
                      [&](const char*, const auto& value, auto...) { std::memcpy(&bits.emplace_back(), &value, 4); });
      },
      o.kind);
  return bits;
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
  for (const bool more : {false, true}) {
    const Graph fused = fuse(g, {true, more, more});
    verify(fused);  // what is legal stays legal
    plan_buffers(fused, kRows, kSelected);
  }
  return true;
}

}  // namespace

TEST_CASE("graph: builders derive widths and rows, and refuse ids that are not there") {
  Graph g = tiny();
  verify(g);
  const auto value = [&](const std::string& name) { return g.values[static_cast<size_t>(op(g, name).outputs[0])]; };
  CHECK((value("embed").width == 32 && value("layer 0 k").width == 16 && value("layer 0 swiglu").width == 64));
  CHECK((value("output_norm").rows == Rows::selected && value("output").width == 96));
  CHECK(op(g, "layer 0 attention").as<AttentionOp>()->n_heads == 4);
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

TEST_CASE("graph: sinks and clamped gates are written, read back and held to their shapes") {
  Graph g = tiny();
  Op& attention = op(g, "layer 0 attention");
  const std::string plain = g.serialize();
  attention.weights = {g.weight("sinks", 1, 4)};
  op(g, "layer 0 swiglu").kind = SwigluClampedOp{1.702f, 7};
  verify(g);
  CHECK((g.serialize() != plain && Graph::parse(g.serialize()).serialize() == g.serialize()));
  CHECK(g.hash() != tiny().hash());
  attention.weights = {g.weight("too few", 1, 3)};
  expect_error<ModelFormatError>([&] { verify(g); }, {"attention): weight", "expected [1, 4], found [1, 3]"});
  attention.weights = {kNone};
  expect_error<ModelFormatError>([&] { verify(g); }, {"attention): a weight is missing"});
  attention.weights.clear();
  op(g, "layer 0 swiglu").as<SwigluClampedOp>()->limit = 0;
  expect_error<ModelFormatError>([&] { verify(g); }, {"swiglu_clamped): limit: expected a number above 0"});
}

TEST_CASE("graph: verify names what is wrong with experts") {
  const auto made = [] {
    TinyShape shape;
    shape.layers = 1, shape.experts = 4;
    return tiny_graph(shape);
  };
  verify(made());
  CHECK(made().serialize() == Graph::parse(made().serialize()).serialize());
  const auto route = [](Graph& g) { return op(g, "layer 0 route").as<RouteOp>(); };
  const auto weight = [](Graph& g, const char* name) -> WeightRef& {
    return g.weights[static_cast<size_t>(op(g, name).weights[0])];
  };
  const std::pair<std::function<void(Graph&)>, std::vector<std::string>> faults[] = {
      {[&](Graph& g) { route(g)->n_used = 5; }, {"route (route): used: expected 1 to 4 experts, found 5"}},
      {[&](Graph& g) { route(g)->n_used = 0; }, {"used: expected 1 to 4 experts, found 0"}},
      {[&](Graph& g) { route(g)->n_used = 3; }, {"expected a width of 3, found [tokens, 2]"}},
      {[&](Graph& g) { route(g)->gate = 2; }, {"gate: expected 0 or 1, found 2"}},
      {[&](Graph& g) { route(g)->normalise = 2; }, {"normalise: expected 0 or 1, found 2"}},
      {[&](Graph& g) { route(g)->scale = 0; }, {"scale: expected a number above 0"}},
      {[&](Graph& g) { route(g)->n_groups = 3; }, {"groups: expected a divisor of 4 up to 64, found 3"}},
      {[&](Graph& g) { route(g)->n_groups_used = 2; }, {"groups_used: expected 1 to 1, found 2"}},
      {[&](Graph& g) { route(g)->n_groups = 4; }, {"used: expected at most the 1 experts of the groups, found 2"}},
      {[&](Graph& g) { weight(g, "layer 0 experts up").experts = 3; },
       {"experts up (linear_routed)", "of the 4 experts that are chosen from, found of 3"}},
      {[&](Graph& g) { weight(g, "layer 0 experts up").experts = 0; }, {"found of 0"}},
      {[&](Graph& g) { weight(g, "layer 0 experts up").experts = 1 << 17; }, {"expected at most 65536 experts"}},
      {[&](Graph& g) { weight(g, "layer 0 experts up").whole = 64; }, {"all of a tensor of experts"}},
      {[&](Graph& g) { weight(g, "layer 0 experts up").rows = 32; }, {"expected a width of 64, found [tokens, 128]"}},
      {[&](Graph& g) { weight(g, "layer 0 experts down").cols = 32; }, {"expected a width of 32 or 64, found"}},
      {[&](Graph& g) { weight(g, "layer 0 scores").experts = 1; },
       {"layer 0 scores (linear)", "ffn_gate_inp.weight\": expected one matrix, found experts"}},
      {[&](Graph& g) { op(g, "layer 0 experts up").weights[1] = op(g, "layer 0 ffn_norm").weights[0]; },
       {"bias \"blk.0.ffn_norm.weight\": expected of as many experts"}},
      {[&](Graph& g) { std::swap(op(g, "layer 0 experts up").inputs[0], op(g, "layer 0 experts up").inputs[1]); },
       {"input 0: expected values, found numbers of experts"}},
      {[&](Graph& g) { op(g, "layer 0 experts sum").inputs[1] = op(g, "layer 0 route").outputs[0]; },
       {"experts sum (sum_routed): input 1: expected values, found numbers of experts"}},
      {[&](Graph& g) { op(g, "layer 0 experts up").inputs[1] = op(g, "layer 0 route").outputs[1]; },
       {"input 1: expected numbers of experts, found values"}},
      {[&](Graph& g) { std::swap(op(g, "layer 0 route").outputs[0], op(g, "layer 0 route").outputs[1]); },
       {"output 0: expected numbers of experts, found values"}},
      {[&](Graph& g) { op(g, "layer 0 experts sum").inputs[0] = op(g, "layer 0 ffn_norm").outputs[0]; },
       {"expected a width of 64, found [tokens, 32]"}},
  };
  for (const auto& [make, parts] : faults) {
    Graph g = made();
    make(g);
    expect_error<ModelFormatError>([&] { verify(g); }, parts);
  }
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
      {[](Graph& g) { op(g, "layer 0 q").inputs = {1, 1, 1}; }, {"inputs: expected 1, found 3"}},
      {[](Graph& g) { op(g, "layer 0 q").outputs.clear(); }, {"outputs: expected 1, found 0"}},
      {[](Graph& g) { op(g, "layer 0 q").weights.pop_back(); }, {"weights: expected 2, found 1"}},
      {[](Graph& g) { op(g, "layer 0 ffn residual").inputs[0] = op(g, "layer 0 gate").outputs[0]; },
       {"layer 0 ffn residual (add): expected [tokens, 64], found [tokens, 32]"}},
      {[](Graph& g) { op(g, "layer 0 rope q").as<RopeOp>()->n_heads = 3; },
       {"rope): expected a width of 24, found [tokens, 32]"}},
      {[](Graph& g) { op(g, "layer 0 rope q").as<RopeOp>()->rot_dim = 7; },
       {"rot_dim: expected even, from 2 to 8, found 7"}},
      {[](Graph& g) { op(g, "layer 0 rope q").as<RopeOp>()->rot_dim = 10; }, {"rot_dim", "found 10"}},
      {[](Graph& g) { op(g, "layer 0 rope q").as<RopeOp>()->style = 2; }, {"style: expected 0 or 1, found 2"}},
      {[=](Graph& g) { op(g, "layer 0 rope q").as<RopeOp>()->base = nan; },
       {"base: expected a number above 0, found nan"}},
      {[=](Graph& g) { op(g, "layer 0 ffn_norm").as<RmsNormOp>()->eps = nan; }, {"layer 0 ffn_norm (rms_norm): eps"}},
      {[](Graph& g) { op(g, "layer 0 kv_append").as<KvAppendOp>()->layer = 1; },
       {"layer 1 of group 0 is not in the graph"}},
      {[](Graph& g) { op(g, "layer 0 attention").as<AttentionOp>()->group = 7; }, {"attention): layer 0 of group 7"}},
      {[=](Graph& g) { op(g, "layer 0 attention").as<AttentionOp>()->scale = nan; },
       {"layer 0 attention (attention): scale: expected a number above 0, found nan"}},
      {[](Graph& g) { op(g, "embed").as<EmbedOp>()->scale = INFINITY; }, {"embed (embed): scale", "found inf"}},
      {[](Graph& g) { op(g, "layer 0 attention").rooms = {3}; }, {"value 3 is defined twice"}},
      {[](Graph& g) {
         g.values.push_back({8, Rows::tokens}), op(g, "layer 0 q").rooms = {int32_t(g.values.size()) - 1};
       },
       {"layer 0 q (linear): values in between: expected none, found 1"}},
      {[](Graph& g) { g.groups[0].n_kv_heads = g.arch.n_kv_heads = 4; },
       {"kv_append): expected a width of 32, found [tokens, 16]"}},
      {[](Graph& g) { g.groups[0].n_kv_heads = 4; },
       {"layer group: expected at most the model's KV heads and head_dim, 2, 32, found 4, 8"}},
      {[](Graph& g) { g.arch.head_dim = 0; }, {"KV heads and head_dim, 2, 0, found 2, 8"}},
      {[](Graph& g) { g.groups[0].head_dim = 12; }, {"head_dim that is a multiple of 8, found 1, 2, 12"}},
      {[](Graph& g) { g.kv_append(3, 4, 0, 0, "again"), std::rotate(g.ops.begin(), g.ops.end() - 1, g.ops.end()); },
       {"again (kv_append): value 3 is read before"}},
      {[](Graph& g) { g.ops.insert(g.ops.begin() + 8, op(g, "layer 0 kv_append")); }, {"appended twice"}},
      {[](Graph& g) { std::erase_if(g.ops, [](const Op& o) { return o.is<KvAppendOp>(); }); },
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
    expect_error<ModelFormatError>([&] { verify(g); }, fault.parts);
  }
}

TEST_CASE("graph: recurrent layers are written, read back, and held to their states") {
  const auto hybrid = [] {
    TinyShape shape;
    shape.convolve = 1;
    return test::tiny_graph(shape);
  };
  const std::string text = hybrid().serialize();
  CHECK(text.find("\nrecurrent layers 1 width 64\n") != std::string::npos);
  CHECK(text.find("layer 0 gated 1") != std::string::npos);
  CHECK(Graph::parse(text).serialize() == text);
  struct Fault {
    std::function<void(Graph&)> make;
    std::vector<std::string> parts;
  };
  verify(Graph::parse(text));
  const std::vector<Fault> faults = {
      {[](Graph& g) { g.recurrent.n_layers = 2; },
       {"expected an op for each of the 1 parts of the state of each of the 2 recurrent layers, found 1"}},
      {[](Graph& g) { g.recurrent.n_layers = 0; },
       {"short_conv): layer: expected one of the 0 recurrent ones, found 0"}},
      {[](Graph& g) { g.recurrent.widths = {63}; }, {"short_conv): expected a state of 64 values a layer, found 63"}},
      {[](Graph& g) { g.recurrent.widths = {}; }, {"short_conv): part: expected one of the state's 0, found 0"}},
      {[](Graph& g) { g.recurrent.widths.push_back(7); },
       {"expected an op for each of the 2 parts of the state of each of the 1 recurrent layers, found 1"}},
      {[](Graph& g) { op(g, "layer 0 short_conv").as<ShortConvOp>()->silu = 2; }, {"silu: expected 0 or 1, found 2"}},
      {[](Graph& g) { op(g, "layer 0 short_conv").as<ShortConvOp>()->gated = 2; }, {"gated: expected 0 or 1, found 2"}},
      {[](Graph& g) { op(g, "layer 0 short_conv").as<ShortConvOp>()->gated = 0; }, {"expected a width of 32"}},
      {[](Graph& g) { op(g, "layer 0 short_conv").weights[0] = kNone; }, {"short_conv): a weight is missing"}},
      {[](Graph& g) { op(g, "layer 0 short_conv").weights[1] = op(g, "layer 0 short_conv").weights[0]; },
       {"expected [1, 32], found [32, 3]"}},
      {[](Graph& g) { g.weights[static_cast<size_t>(op(g, "layer 0 short_conv").weights[0])].cols = 9; },
       {"taps: expected 2 to 8, found 9"}},
      {[](Graph& g) {
         Op again = op(g, "layer 0 short_conv");
         g.values.push_back({32, Rows::tokens}), again.outputs = {static_cast<ValueId>(g.values.size()) - 1};
         g.ops.insert(g.ops.begin() + 5, again);
       },
       {"the layer's state is another op's already"}},
      {[](Graph& g) { g.groups[0].window = 16; }, {"expected no window beside recurrent layers, found 16"}},
  };
  for (const Fault& fault : faults) {
    Graph g = hybrid();
    fault.make(g);
    expect_error<ModelFormatError>([&] { verify(g); }, fault.parts);
  }
}

TEST_CASE("graph: delta nets and gates are written, read back, and held to their shapes") {
  const auto hybrid = [] {
    TinyShape shape;
    shape.convolve = 1, shape.delta = true;
    return test::tiny_graph(shape);
  };
  const std::string text = hybrid().serialize();
  CHECK(text.find("\nrecurrent layers 1 width 128 256\n") != std::string::npos);
  CHECK(text.find("layer 0 part 1 k_heads 2 v_heads 4 head_k 8 head_v 8") != std::string::npos);
  CHECK(Graph::parse(text).serialize() == text);
  verify(Graph::parse(text));
  const auto delta = [](Graph& g) -> GatedDeltaOp& { return *op(g, "layer 0 gated_delta").as<GatedDeltaOp>(); };
  const auto width = [](Graph& g, size_t input) -> uint32_t& {
    return g.values[static_cast<size_t>(op(g, "layer 0 gated_delta").inputs[input])].width;
  };
  struct Fault {
    std::function<void(Graph&)> make;
    std::vector<std::string> parts;
  };
  const std::vector<Fault> faults = {
      {[&](Graph& g) { delta(g).k_heads = 3; }, {"gated_delta): v_heads: expected a multiple of k_heads, 3, found 4"}},
      {[&](Graph& g) { delta(g).k_heads = 0; }, {"v_heads: expected a multiple of k_heads, 0, found 4"}},
      {[&](Graph& g) { delta(g).head_k = 257; }, {"heads: expected 1 to 256 values, found 257"}},
      {[&](Graph& g) { delta(g).head_v = 0; }, {"heads: expected 1 to 256 values, found 0"}},
      {[&](Graph& g) { delta(g).k_heads = 1; }, {"expected a width of 48, found [tokens, 64]"}},
      {[&](Graph& g) { std::swap(op(g, "layer 0 gated_delta").inputs[1], op(g, "layer 0 gated_delta").inputs[3]); },
       {"expected a width of 4, found [tokens, 32]"}},
      {[&](Graph& g) { op(g, "layer 0 gated_delta").weights[2] = kNone; }, {"gated_delta): a weight is missing"}},
      {[&](Graph& g) { std::swap(op(g, "layer 0 gated_delta").weights[1], op(g, "layer 0 gated_delta").weights[2]); },
       {"expected [1, 4], found [1, 8]"}},
      {[&](Graph& g) { delta(g).eps = 0; }, {"eps: expected a number above 0"}},
      {[&](Graph& g) { delta(g).qk_eps = -1; }, {"qk_eps: expected a number above 0"}},
      {[&](Graph& g) { delta(g).part = 0; }, {"gated_delta): expected a state of 256 values a layer, found 128"}},
      {[&](Graph& g) { delta(g).part = 2; }, {"gated_delta): part: expected one of the state's 2, found 2"}},
      {[&](Graph& g) { delta(g).layer = 1; }, {"layer: expected one of the 1 recurrent ones, found 1"}},
      {[&](Graph& g) { op(g, "layer 1 attention gate").as<SigmoidGateOp>()->n_heads = 5; },
       {"sigmoid_gate): n_heads: expected a divisor of 32, found 5"}},
  };
  for (const Fault& fault : faults) {
    Graph g = hybrid();
    fault.make(g);
    expect_error<ModelFormatError>([&] { verify(g); }, fault.parts);
  }
  Graph g = hybrid();
  op(g, "layer 1 attention gate").inputs[1] = op(g, "layer 0 gated_delta").inputs[1];
  verify(g);  // one for each of as many heads
  op(g, "layer 1 attention gate").inputs[1] = op(g, "layer 0 attn_gate").inputs[0];
  verify(g);  // one for each value: as wide as the hidden state is here
  op(g, "layer 1 attention gate").inputs[1] = op(g, "layer 1 gate").outputs[0];
  expect_error<ModelFormatError>([&] { verify(g); }, {"is read before an op defines it"});
  width(g, 3) = 31;
  expect_error<ModelFormatError>([&] { verify(g); }, {"expected [31, 32], found [32, 32]"});
}

TEST_CASE("graph: more heads than the model has are refused, for scratch is measured by the model's") {
  Graph g = tiny();
  g.arch.n_heads = 2;  // attention has 4
  expect_error<ModelFormatError>([&] { verify(g); },
                                 {"layer 0 attention (attention): n_heads: expected at most the model's 2, found 4"});
  // The same from a file's text.
  std::string text = tiny().serialize();
  text.replace(text.find(" heads 4"), 8, " heads 2");
  expect_error<ModelFormatError>([&] { verify(Graph::parse(text)); }, {"expected at most the model's 2, found 4"});
}

TEST_CASE("graph: scratch is measured by what runs, whatever the model's figures are") {
  const Graph g = tiny();
  Graph forged = g;
  forged.arch.n_heads = 1;
  const TinyFile file(g);
  for (const std::string& name : device_names()) {
    const auto device = make_device({name, 1, {}});
    const WeightStore weights(file.open(), g);
    const StepRunner right(*device, g, weights, {}, kRows, kSelected),
        same(*device, forged, weights, {}, kRows, kSelected);
    CHECK_MESSAGE(right.workspace_bytes() == same.workspace_bytes(), name);
  }
}

TEST_CASE("graph: what is written comes back, to the last bit") {
  for (Graph& g : std::vector<Graph>{tiny(3), random_graph(3), Graph{}}) {
    g.arch.name = "a name with spaces, \xc3\xa9 and in 0 w 1 # signs";
    g.add_group({UINT32_MAX, 1, 2, 3});
    for (const float x : {0.0f, -0.0f, 0x1p-149f, 0.1f, -std::numeric_limits<float>::max(), INFINITY}) {
      g.ops.push_back({RopeOp{1, UINT32_MAX, 2, 3, x, -x, 1, 0, 0}, "", {}, {}, {}, {}});
      g.ops.push_back({RopeOp{1, UINT32_MAX, 2, 3, x, -x, x, -x, UINT32_MAX}, "", {}, {}, {}, {}});
      g.ops.push_back({AttentionOp{5, x, 6, 7, 0}, "", {}, {}, {}, {}});
      g.ops.push_back({AttentionOp{5, x, 6, 7, x}, "", {}, {}, {}, {}});
      g.ops.push_back({LayerNormOp{x}, "", {}, {}, {}, {}});
      g.ops.push_back({ScaleOp{x, -x}, "", {}, {}, {}, {}});
      g.ops.push_back({RmsNormOp{x}, "", {}, {}, {}, {}});
      g.ops.push_back({EmbedOp{x}, "", {}, {}, {}, {}});
    }
    g.ops.push_back({KvAppendOp{UINT32_MAX, 1}, "", {}, {}, {}, {}});
    g.ops.push_back({GeluOp{}, "", {}, {}, {}, {}});
    g.ops.push_back({ResizeHeadsOp{UINT32_MAX, 1, 2}, "", {}, {}, {}, {}});
    g.part("a tensor", 3, 5, 7, 11);
    g.constant("values", {0.1f, -0.0f, 0x1p-149f});
    const std::string text = g.serialize();
    const Graph back = Graph::parse(text);
    CHECK(back.serialize() == text);
    REQUIRE(back.ops.size() == g.ops.size());
    for (size_t i = 0; i < g.ops.size(); ++i) {
      const Op &a = g.ops[i], &b = back.ops[i];
      CHECK((a.name == b.name && a.inputs == b.inputs && a.outputs == b.outputs && a.weights == b.weights));
      CHECK(a.kind.index() == b.kind.index());
      CHECK(attributes(a) == attributes(b));
    }
    CHECK((back.arch.name == g.arch.name && back.arch.max_seq_len == g.arch.max_seq_len && back.logits == g.logits));
    CHECK((back.groups.back().n_layers == UINT32_MAX && back.groups.back().window == 3));
    REQUIRE((back.values.size() == g.values.size() && back.weights.size() == g.weights.size()));
    for (size_t i = 0; i < g.values.size(); ++i)
      CHECK((back.values[i].width == g.values[i].width && back.values[i].rows == g.values[i].rows));
    const WeightRef &part = back.weights.end()[-2], &constant = back.weights.back();
    CHECK((part.rows == 3 && part.first == 7 && part.whole == 11 && part.constant.empty()));
    REQUIRE(constant.constant.size() == 3);
    CHECK(std::memcmp(constant.constant.data(), g.weights.back().constant.data(), 3 * sizeof(float)) == 0);
  }
  for (const char* name : {"a\nb", "a\"b", "a\\b"}) {
    Graph g;
    g.arch.name = name;
    CHECK_THROWS_AS(g.serialize(), ModelFormatError);
  }
  expect_error<ValueError>([] { return fuse(tiny(), {}).serialize(); }, {"a fused graph", "is not written"});
}

TEST_CASE("graph: its hash is of what it computes") {
  const Graph g = tiny();
  Graph renamed = g, other = g, layer = g;
  op(renamed, "layer 0 q").name = "query";
  op(other, "layer 0 ffn_norm").as<RmsNormOp>()->eps *= 2;
  op(layer, "layer 0 q").weights[0] = op(layer, "layer 0 o").weights[0];
  CHECK(renamed.hash() == g.hash());  // errors tell it, and nothing else
  CHECK(other.hash() != g.hash());
  CHECK(layer.hash() != g.hash());
  CHECK_THROWS_AS(fuse(g, {}).hash(), ValueError);
}

TEST_CASE("graph: a damaged text is refused with its line") {
  const std::string head = "foundry-graph 2\n";
  const std::pair<std::string, std::string> texts[] = {
      {"", "after line 0"},
      {"foundry-graph 1\n", "line 1: expected version 2, found 1"},
      {"graph 1\n", "line 1: expected foundry-graph, found graph"},
      {"foundry-graph 2 1\n", "line 1: expected nothing more"},
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
      {head + "op fused_linear \"x\" in 1 out 2 w 0 -1\n", "no op of the name fused_linear"},
      {head + "op rms_norm \"x\" in 1 out 2 w eps much\n", "eps: expected a number, found much"},
      {head + "op rms_norm \"x\" in 1 out 2 w scale 0x1p+0\n", "expected eps, found scale"},
      {head + "op add \"x\" in 1 2 out 3 w eps 0x1p+0\n", "expected nothing more, found eps"},
      {head + "op kv_append \"x\" in 1 2 out w group 0 layer -1\n", "layer: expected 0 to 4294967295, found -1"},
      {head + "op attention \"x\" in 1 out 2 w heads 4 scale 0x1p+0 group 0\n", "ends too early"},
      {head + "poetry\n", "line 2: expected arch, group"},
  };
  for (const auto& [text, part] : texts) expect_error<ModelFormatError>([&] { Graph::parse(text); }, {part});
}

TEST_CASE("graph: hostile bytes are refused or harmless, wherever they are") {
  for (const std::string& text : {tiny().serialize(), random_graph(5).serialize()}) {
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

}  // namespace foundry
