// What makes a graph legal, one rule a kind.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <span>
#include <string>

#include "graph/op_expectations.h"
#include "params.h"

namespace foundry {
namespace {

/// Dims that a group may keep for heads of head_dim: filled up to whole blocks of 32, the largest of what K and V may have.
uint64_t most_kept(uint64_t head_dim) { return (head_dim + 31) / 32 * 32; }

class Verifier : OpExpectations {
 public:
  explicit Verifier(const Graph& graph)
      : OpExpectations(graph), defined_(graph.values.size(), false), ever_defined_(defined_) {}

  void run() {
    groups();
    weights();
    for (const Op& op : graph_.ops) {
      op_ = &op;
      for (const ValueId id : op.inputs) {
        id_in_range(id, graph_.values.size(), "input value");
        if (!defined_[static_cast<size_t>(id)])
          fail("value " + std::to_string(id) + " is read before an op defines it");
      }
      for (const WeightId id : op.weights)
        if (id != kNone) id_in_range(id, graph_.weights.size(), "weight");
      for (const ValueId id : op.outputs) define(id, "output value");
      for (const ValueId id : op.rooms) define(id, "value in between");  // and never readable
      what_is_held(op);
      if (!op.is<LinearRoutedOp>()) one_matrix(op);
      if (!op.rooms.empty() && !op.is<FusedLinearOp>() && !op.is<FusedAppendOp>())
        fail("values in between: expected none, found " + std::to_string(op.rooms.size()));
      std::visit([&](const auto& kind) { check(op, kind); }, op.kind);
      for (const ValueId id : op.outputs) defined_[static_cast<size_t>(id)] = true;
    }
    if (selects_ != 1) fault("graph: expected one select_rows, found " + std::to_string(selects_));
    if (graph_.logits < 0 || static_cast<size_t>(graph_.logits) >= graph_.values.size() ||
        !defined_[static_cast<size_t>(graph_.logits)])
      fault("graph: expected logits that an op defines, found value " + std::to_string(graph_.logits));
    const Value& logits = graph_.values[static_cast<size_t>(graph_.logits)];
    if (logits.rows != Rows::selected || logits.width != graph_.arch.vocab_size)
      fault("graph: logits: expected [selected, " + std::to_string(graph_.arch.vocab_size) + "], found " +
            shape(graph_.logits));
    if (graph_.arch.max_seq_len == 0) fault("graph: max_seq_len: expected at least 1, found 0");
    if (graph_.groups.empty()) fault("graph: expected at least one layer group, found none");
    uint64_t layers = 0;  // each takes memory in every page
    for (const LayerGroup& group : graph_.groups) layers += group.n_layers;
    if (layers > std::max<uint64_t>(appended_.size(), graph_.groups.size()))
      fault("graph: expected a kv_append for each of the groups' " + std::to_string(layers) + " layers, found " +
            std::to_string(appended_.size()));
    const RecurrentGroup& recurrent = graph_.recurrent;
    if (kept_.size() != recurrent.widths.size() * recurrent.n_layers)
      fault("graph: expected an op for each of the " + std::to_string(recurrent.widths.size()) +
            " parts of the state of each of the " + std::to_string(recurrent.n_layers) + " recurrent layers, found " +
            std::to_string(kept_.size()));
  }

 private:
  void define(ValueId id, const char* what) {
    id_in_range(id, graph_.values.size(), what);
    if (ever_defined_[static_cast<size_t>(id)]) fail("value " + std::to_string(id) + " is defined twice");
    ever_defined_[static_cast<size_t>(id)] = true;
  }
  void groups() const {
    const Arch& arch = graph_.arch;
    for (const LayerGroup& group : graph_.groups) {
      const std::string found = std::to_string(group.n_kv_heads) + ", " + std::to_string(group.head_dim);
      if (group.n_layers == 0 || group.n_kv_heads == 0 || group.head_dim == 0 || group.head_dim % 8 != 0)
        fault("layer group: expected layers, KV heads and a head_dim that is a multiple of 8, found " +
              std::to_string(group.n_layers) + ", " + found);
      if (group.n_kv_heads > arch.n_kv_heads || group.head_dim > most_kept(arch.head_dim))
        fault("layer group: expected at most the model's KV heads and head_dim, " + std::to_string(arch.n_kv_heads) +
              ", " + std::to_string(most_kept(arch.head_dim)) + ", found " + found);
      // What a state is replayed from on may lie before what a window keeps.
      if (group.window != 0 && graph_.recurrent.n_layers != 0)
        fault("layer group: expected no window beside recurrent layers, found " + std::to_string(group.window));
    }
  }
  void weights() const {
    for (const WeightRef& w : graph_.weights) {
      const uint64_t n = w.rows == 1 ? w.cols : w.rows;
      if (w.whole != 0 && (w.first > w.whole || n > w.whole - w.first))
        fault("weight \"" + w.name + "\": expected a part of its " + std::to_string(w.whole) + ", found " +
              std::to_string(n) + " from " + std::to_string(w.first) + " on");
      if (w.whole == 0 && w.first != 0) fault("weight \"" + w.name + "\": a part of nothing");
      if (w.experts != 0 && (w.whole != 0 || !w.constant.empty()))
        fault("weight \"" + w.name + "\": expected all of a tensor of experts, found a part or a constant");
      if (w.experts > kMostExperts)
        fault("weight \"" + w.name + "\": expected at most " + std::to_string(kMostExperts) + " experts, found " +
              std::to_string(w.experts));
      if (w.constant.empty()) continue;
      if (w.rows != 1 || w.cols != w.constant.size() || w.whole != 0)
        fault("weight \"" + w.name + "\": expected a vector of its " + std::to_string(w.constant.size()) +
              " values, found [" + std::to_string(w.rows) + ", " + std::to_string(w.cols) + "]");
      for (const float value : w.constant)
        if (!std::isfinite(value)) fault("weight \"" + w.name + "\": expected numbers, found " + std::to_string(value));
    }
  }
  const LayerGroup& group(uint32_t group, uint32_t layer) const {
    if (group >= graph_.groups.size() || layer >= graph_.groups[group].n_layers)
      fail("layer " + std::to_string(layer) + " of group " + std::to_string(group) + " is not in the graph's groups");
    return graph_.groups[group];
  }
  void body_only() const {
    if (selects_ != 0) fail("expected before select_rows, found after it");
  }

  void check(const Op& op, const EmbedOp& embed) const {
    counts(0, 1, 1);
    body_only();
    weight(op.weights[0], graph_.arch.vocab_size, value(op.outputs[0]).width);
    rows_are(op.outputs[0], Rows::tokens);
    above_zero("scale", embed.scale);
  }

  void check(const Op& op, const RmsNormOp& norm) const {
    counts(1, 1, 1);
    same_shape(op.inputs[0], op.outputs[0]);
    norm_weight(op.weights[0], value(op.inputs[0]).width);
    above_zero("eps", norm.eps);
  }

  /// y_i = x W_i^T (+ bias_i)
  void linears(ValueId x, std::span<const ValueId> ys, std::span<const WeightId> ws) const {
    for (size_t i = 0; i < ys.size(); ++i) {
      weight(ws[i], value(ys[i]).width, value(x).width);
      if (ws[ys.size() + i] != kNone) weight(ws[ys.size() + i], 1, value(ys[i]).width);
      rows_are(ys[i], value(x).rows);
    }
  }

  void check(const Op& op, const LinearOp&) const {
    counts(1, 1, 2);
    linears(op.inputs[0], op.outputs, op.weights);
  }

  void check(const Op& op, const FusedLinearOp& fused) const {
    if (!graph_.fused) fail("expected in a fused graph alone");
    const bool normed = fused.norm.has_value(), gated = fused.gate != FusedLinearOp::Gate::none;
    const size_t n = fused.n_linears;
    if (n == 0) fail("linears: expected at least 1, found 0");
    if (gated && n != 2) fail("a gate: expected of 2 linears, found of " + std::to_string(n));
    if (fused.residual && n != 1) fail("a residual: expected of 1 linear, found of " + std::to_string(n));
    counts(fused.residual ? 2 : 1, gated ? 1 : n, 2 * n + (normed ? 1 : 0));
    count("values in between", op.rooms.size(), (normed ? 1 : 0) + (gated ? 2 : 0), (normed ? 1 : 0) + (gated ? 2 : 0));
    const ValueId x = op.inputs[0];
    const std::span rooms(op.rooms);
    linears(x, gated ? rooms.last(2) : std::span(op.outputs), op.weights);
    if (normed) {
      same_shape(x, rooms[0]);
      weight(op.weights[2 * n], 1, value(x).width);
      above_zero("eps", fused.norm->eps);
    }
    if (fused.residual) same_shape(op.outputs[0], op.inputs[1]);
    if (gated) {
      if (op.weights[2] != kNone || op.weights[3] != kNone) fail("a gate: expected of linears without biases");
      same_shape(op.outputs[0], rooms.last(2)[0]);
      same_shape(op.outputs[0], rooms.last(2)[1]);
    }
  }

  void check(const Op& op, const RopeOp& rope) const {
    counts(1, 1, 1);
    body_only();
    turns(op.inputs[0], op.outputs[0], rope, op.weights[0]);
  }
  void turns(ValueId x, ValueId y, const RopeOp& rope, WeightId factors) const {
    same_shape(x, y);
    width(x, uint64_t{rope.n_heads} * rope.head_dim);
    if (rope.rot_dim == 0 || rope.rot_dim % 2 != 0 || rope.rot_dim > rope.head_dim)
      fail("rot_dim: expected even, from 2 to " + std::to_string(rope.head_dim) + ", found " +
           std::to_string(rope.rot_dim));
    if (rope.style > 1) fail("style: expected 0 or 1, found " + std::to_string(rope.style));
    above_zero("base", rope.base);
    above_zero("scale", rope.scale);
    above_zero("magnitude", rope.magnitude);
    not_below_zero("temperature", rope.temperature);
    if (factors != kNone) weight(factors, 1, rope.rot_dim / 2);
  }

  void check(const Op& op, const KvAppendOp& append) {
    counts(2, 0, 0);
    body_only();
    appends(op.inputs, append);
  }
  void check(const Op& op, const FusedAppendOp& fused) {
    if (!graph_.fused) fail("expected in a fused graph alone");
    counts(3, 1, 1);
    count("values in between", op.rooms.size(), 1, 1);
    body_only();
    turns(op.inputs[0], op.outputs[0], fused.q, op.weights[0]);
    turns(op.inputs[1], op.rooms[0], fused.k, op.weights[0]);
    const LayerGroup& kept = group(fused.append.group, fused.append.layer);
    if (fused.k.head_dim != kept.head_dim)
      fail("head_dim: expected the group's, " + std::to_string(kept.head_dim) + ", found " +
           std::to_string(fused.k.head_dim));
    appends(std::span(op.inputs).last(2), fused.append);
  }
  void appends(std::span<const ValueId> kept, const KvAppendOp& append) {
    const LayerGroup& g = group(append.group, append.layer);
    for (const ValueId id : kept) width(id, uint64_t{g.n_kv_heads} * g.head_dim);
    if (!appended_.insert({append.group, append.layer}).second) fail("the layer's K and V are appended twice");
  }

  void check(const Op& op, const AttentionOp& attention) const {
    counts(1, 1, op.weights.empty() ? 0 : 1);
    if (!op.weights.empty()) weight(op.weights[0], 1, attention.n_heads);
    body_only();
    const LayerGroup& g = group(attention.group, attention.layer);
    same_shape(op.inputs[0], op.outputs[0]);
    width(op.inputs[0], uint64_t{attention.n_heads} * g.head_dim);
    if (attention.n_heads == 0 || attention.n_heads % g.n_kv_heads != 0)
      fail("n_heads: expected a multiple of n_kv_heads, " + std::to_string(g.n_kv_heads) + ", found " +
           std::to_string(attention.n_heads));
    at_most("n_heads", attention.n_heads, graph_.arch.n_heads);
    above_zero("scale", attention.scale);
    not_below_zero("cap", attention.cap);
    if (appended_.count({attention.group, attention.layer}) == 0)
      fail("expected the layer's kv_append before it, found none");
  }

  /// Numbers of experts come from a route, and a linear_routed reads them.
  void what_is_held(const Op& op) const {
    const auto check = [&](const std::vector<ValueId>& ids, const char* what, size_t experts_at) {
      for (size_t i = 0; i < ids.size(); ++i) {
        if ((value(ids[i]).holds == Holds::experts) != (i == experts_at))
          fail(std::string(what) + " " + std::to_string(i) + ": expected " +
               (i == experts_at ? "numbers of experts" : "values") + ", found " +
               (i == experts_at ? "values" : "numbers of experts"));
      }
    };
    check(op.inputs, "input", op.is<LinearRoutedOp>() ? 1 : SIZE_MAX);
    check(op.outputs, "output", op.is<RouteOp>() ? 0 : SIZE_MAX);
    check(op.rooms, "value in between", SIZE_MAX);
  }

  void check(const Op& op, const RouteOp& route) {
    counts(1, 2, 1);
    const uint32_t n = value(op.inputs[0]).width;
    if (n > kMostExperts)
      fail("experts: expected at most " + std::to_string(kMostExperts) + ", found " + std::to_string(n));
    if (route.n_used == 0 || route.n_used > n)
      fail("used: expected 1 to " + std::to_string(n) + " experts, found " + std::to_string(route.n_used));
    if (route.gate > static_cast<uint32_t>(RouteGate::sigmoid))
      fail("gate: expected 0 or 1, found " + std::to_string(route.gate));
    if (route.normalise > 1) fail("normalise: expected 0 or 1, found " + std::to_string(route.normalise));
    above_zero("scale", route.scale);
    if (route.n_groups == 0 || route.n_groups > kMostExpertGroups || n % route.n_groups != 0)
      fail("groups: expected a divisor of " + std::to_string(n) + " up to " + std::to_string(kMostExpertGroups) +
           ", found " + std::to_string(route.n_groups));
    if (route.n_groups_used == 0 || route.n_groups_used > route.n_groups)
      fail("groups_used: expected 1 to " + std::to_string(route.n_groups) + ", found " +
           std::to_string(route.n_groups_used));
    if (route.n_used > n / route.n_groups * route.n_groups_used)
      fail("used: expected at most the " + std::to_string(n / route.n_groups * route.n_groups_used) +
           " experts of the groups, found " + std::to_string(route.n_used));
    if (op.weights[0] != kNone) weight(op.weights[0], 1, n);
    for (const ValueId id : op.outputs) {
      width(id, route.n_used);
      rows_are(id, value(op.inputs[0]).rows);
    }
    chosen_from_[op.outputs[0]] = n;
  }

  void check(const Op& op, const LinearRoutedOp&) const {
    counts(2, 1, 2);
    const ValueId x = op.inputs[0], chosen = op.inputs[1];
    if (op.weights[0] == kNone) fail("a weight is missing");
    const WeightRef& w = graph_.weights[static_cast<size_t>(op.weights[0])];
    const uint64_t used = value(chosen).width;
    const uint32_t n = chosen_from_.at(chosen);  // defined, and numbers of experts: a route's
    if (w.experts != n)
      fail("weight \"" + w.name + "\": expected of the " + std::to_string(n) +
           " experts that are chosen from, found of " + std::to_string(w.experts));
    if (value(x).width != w.cols && value(x).width != used * w.cols)
      fail("expected a width of " + std::to_string(w.cols) + " or " + std::to_string(used * w.cols) + ", found " +
           shape(x));
    width(op.outputs[0], used * w.rows);
    rows_are(op.outputs[0], value(x).rows);
    rows_are(chosen, value(x).rows);
    if (op.weights[1] == kNone) return;
    const WeightRef& bias = graph_.weights[static_cast<size_t>(op.weights[1])];
    if (bias.experts != w.experts) fail("bias \"" + bias.name + "\": expected of as many experts as the weight");
    weight(op.weights[1], 1, w.rows);
  }

  void check(const Op& op, const SumRoutedOp&) const {
    counts(2, 1, 0);
    width(op.inputs[0], uint64_t{value(op.outputs[0]).width} * value(op.inputs[1]).width);
    rows_are(op.inputs[1], value(op.inputs[0]).rows);
    rows_are(op.outputs[0], value(op.inputs[0]).rows);
  }

  void check(const Op& op, const ShortConvOp& conv) {
    counts(1, 1, 2);
    body_only();
    if (conv.gated > 1) fail("gated: expected 0 or 1, found " + std::to_string(conv.gated));
    if (op.weights[0] == kNone) fail("a weight is missing");
    const ValueId y = op.outputs[0];
    const uint64_t channels = value(y).width, taps = graph_.weights[static_cast<size_t>(op.weights[0])].cols;
    if (taps < 2 || taps > kMostTaps)
      fail("taps: expected 2 to " + std::to_string(kMostTaps) + ", found " + std::to_string(taps));
    weight(op.weights[0], channels, taps);
    if (op.weights[1] != kNone) weight(op.weights[1], 1, channels);
    width(op.inputs[0], conv.gated == 1 ? 3 * channels : channels);
    rows_are(y, Rows::tokens);
    if (conv.silu > 1) fail("silu: expected 0 or 1, found " + std::to_string(conv.silu));
    keeps(conv.layer, conv.part, (taps - 1) * channels);
  }

  /// An op's part of a recurrent layer's state.
  void keeps(uint32_t layer, uint32_t part, uint64_t width) {
    const RecurrentGroup& group = graph_.recurrent;
    if (layer >= group.n_layers)
      fail("layer: expected one of the " + std::to_string(group.n_layers) + " recurrent ones, found " +
           std::to_string(layer));
    if (part >= group.widths.size())
      fail("part: expected one of the state's " + std::to_string(group.widths.size()) + ", found " +
           std::to_string(part));
    if (group.widths[part] != width)
      fail("expected a state of " + std::to_string(width) + " values a layer, found " +
           std::to_string(group.widths[part]));
    if (!kept_.insert({layer, part}).second) fail("the layer's state is another op's already");
  }

  void check(const Op& op, const GatedDeltaOp& delta) {
    counts(4, 1, 3);
    body_only();
    if (delta.k_heads == 0 || delta.v_heads == 0 || delta.v_heads % delta.k_heads != 0)
      fail("v_heads: expected a multiple of k_heads, " + std::to_string(delta.k_heads) + ", found " +
           std::to_string(delta.v_heads));
    for (const uint32_t size : {delta.head_k, delta.head_v})
      if (size == 0 || size > kMostDeltaDim)
        fail("heads: expected 1 to " + std::to_string(kMostDeltaDim) + " values, found " + std::to_string(size));
    const uint64_t keys = uint64_t{delta.k_heads} * delta.head_k, values = uint64_t{delta.v_heads} * delta.head_v;
    width(op.inputs[0], 2 * keys + values);
    width(op.inputs[1], delta.v_heads);
    width(op.inputs[2], delta.v_heads);
    width(op.inputs[3], values);
    same_shape(op.inputs[3], op.outputs[0]);
    for (const ValueId id : op.inputs) rows_are(id, Rows::tokens);
    weight(op.weights[0], 1, delta.v_heads);
    weight(op.weights[1], 1, delta.v_heads);
    weight(op.weights[2], 1, delta.head_v);
    above_zero("eps", delta.eps);
    above_zero("qk_eps", delta.qk_eps);
    keeps(delta.layer, delta.part, values * delta.head_k);
  }

  void check(const Op& op, const SigmoidGateOp& gate) const {
    counts(2, 1, 0);
    same_shape(op.inputs[0], op.outputs[0]);
    rows_are(op.inputs[1], value(op.inputs[0]).rows);
    const uint32_t all = value(op.inputs[0]).width;
    if (gate.n_heads == 0 || all % gate.n_heads != 0)
      fail("n_heads: expected a divisor of " + std::to_string(all) + ", found " + std::to_string(gate.n_heads));
    const uint64_t found = value(op.inputs[1]).width;
    if (found != gate.n_heads && found != all && found != uint64_t{2} * all)
      fail("gate: expected a width of " + std::to_string(gate.n_heads) + ", " + std::to_string(all) + " or " +
           std::to_string(uint64_t{2} * all) + ", found " + shape(op.inputs[1]));
  }

  void elementwise(const Op& op) const {
    counts(2, 1, 0);
    same_shape(op.inputs[0], op.inputs[1]);
    same_shape(op.inputs[0], op.outputs[0]);
  }
  void check(const Op& op, const SwigluOp&) const { elementwise(op); }
  void check(const Op& op, const GegluOp&) const { elementwise(op); }
  void check(const Op& op, const AddOp&) const { elementwise(op); }
  void check(const Op& op, const SwigluClampedOp& swiglu) const {
    elementwise(op);
    above_zero("alpha", swiglu.alpha);
    above_zero("limit", swiglu.limit);
  }

  void check(const Op& op, const LayerNormOp& norm) const {
    counts(1, 1, 2);
    same_shape(op.inputs[0], op.outputs[0]);
    const uint32_t n = value(op.inputs[0]).width;
    weight(op.weights[0], 1, n);
    if (op.weights[1] != kNone) weight(op.weights[1], 1, n);
    above_zero("eps", norm.eps);
  }

  void check(const Op& op, const GeluOp&) const {
    counts(1, 1, 0);
    same_shape(op.inputs[0], op.outputs[0]);
  }

  void check(const Op& op, const ScaleOp& scale) const {
    counts(1, 1, 0);
    same_shape(op.inputs[0], op.outputs[0]);
    above_zero("scale", scale.scale);
    not_below_zero("cap", scale.cap);
  }

  void check(const Op& op, const ResizeHeadsOp& resize) const {
    counts(1, 1, 0);
    if (resize.n_heads == 0 || resize.from == 0 || resize.to == 0)
      fail("expected heads of at least one value, found " + std::to_string(resize.n_heads) + " of " +
           std::to_string(resize.from) + " and " + std::to_string(resize.to));
    width(op.inputs[0], uint64_t{resize.n_heads} * resize.from);
    width(op.outputs[0], uint64_t{resize.n_heads} * resize.to);
    rows_are(op.outputs[0], value(op.inputs[0]).rows);
  }

  void check(const Op& op, const SelectRowsOp&) {
    counts(1, 1, 0);
    body_only();
    width(op.outputs[0], value(op.inputs[0]).width);
    rows_are(op.outputs[0], Rows::selected);
    ++selects_;
    // The head runs apart from the body: it may read nothing else of it.
    for (size_t i = 0; i < defined_.size(); ++i) defined_[i] = defined_[i] && graph_.values[i].rows == Rows::selected;
  }

  std::vector<bool> defined_;  // and readable: the head sees nothing of the body
  std::vector<bool> ever_defined_;
  std::set<std::pair<uint32_t, uint32_t>> appended_;
  std::set<std::pair<uint32_t, uint32_t>> kept_;  // parts of recurrent layers' states
  std::map<ValueId, uint32_t> chosen_from_;       // what a route chose -> of how many
  size_t selects_ = 0;
};

}  // namespace

void verify(const Graph& graph) { Verifier(graph).run(); }

}  // namespace foundry
