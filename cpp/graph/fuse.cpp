// Neighbours that a device runs in one call, made one op. No fusion changes an order of summation or a rounding.
#include <optional>
#include <utility>

#include "base/error.h"
#include "graph/graph.h"

namespace foundry {
namespace {

/// How often each value is read; the logits are read once more, by whoever asked for them.
std::vector<size_t> count_readers(const Graph& graph) {
  std::vector<size_t> readers(graph.values.size());
  if (graph.logits != kNone) ++readers[static_cast<size_t>(graph.logits)];
  for (const Op& op : graph.ops)
    for (const ValueId in : op.inputs) ++readers[static_cast<size_t>(in)];
  return readers;
}

/// Goes over the ops in order; `join(before, op, readers)` may make `before` both of them.
template <class Join>
void join_neighbours(Graph& graph, const Join& join) {
  const std::vector<size_t> counts = count_readers(graph);
  const auto readers = [&](ValueId value) { return counts[static_cast<size_t>(value)]; };
  std::vector<Op> ops;
  for (Op& op : graph.ops) {
    const std::string name = ops.empty() ? "" : ops.back().name + " + " + op.name;
    if (!ops.empty() && join(ops.back(), op, readers))
      ops.back().name = name;
    else
      ops.push_back(std::move(op));
  }
  graph.ops = std::move(ops);
}

/// An op's linear as a fused one, which has nothing else yet; none where it is no linear.
std::optional<FusedLinearOp> linear_of(const Op& op) {
  if (op.is<LinearOp>()) return FusedLinearOp{};
  if (const auto* fused = op.as<FusedLinearOp>()) return *fused;
  return {};
}

/// A run of neighbouring linears over one value: it is read, and quantised, once.
void join_siblings(Graph& graph) {
  join_neighbours(graph, [](Op& before, const Op& op, const auto&) {
    auto fused = linear_of(before);
    if (!fused || !op.is<LinearOp>() || before.inputs != op.inputs) return false;
    before.outputs.push_back(op.outputs[0]);
    before.weights.insert(before.weights.begin() + fused->n_linears, op.weights[0]);
    before.weights.push_back(op.weights[1]);
    ++fused->n_linears;
    before.kind = *fused;
    return true;
  });
}

/// linear, then add(residual, its result): the linear writes the sum.
void fold_residuals(Graph& graph) {
  join_neighbours(graph, [](Op& before, const Op& op, const auto& readers) {
    if (!before.is<LinearOp>() || !op.is<AddOp>()) return false;
    const ValueId y = before.outputs[0];
    const bool first = op.inputs[0] == y, second = op.inputs[1] == y;
    if (first == second || readers(y) != 1) return false;
    FusedLinearOp fused;
    fused.residual = true;
    before.kind = fused;
    before.inputs.push_back(first ? op.inputs[1] : op.inputs[0]);
    before.outputs = op.outputs;
    return true;
  });
}

/// linears (gate, up), then swiglu or geglu of them.
void fold_gates(Graph& graph) {
  join_neighbours(graph, [](Op& before, const Op& op, const auto& readers) {
    auto* fused = before.as<FusedLinearOp>();
    if (fused == nullptr || fused->n_linears != 2 || op.inputs != before.outputs) return false;
    if (!op.is<SwigluOp>() && !op.is<GegluOp>()) return false;
    if (before.weights[2] != kNone || before.weights[3] != kNone) return false;
    if (readers(op.inputs[0]) != 1 || readers(op.inputs[1]) != 1) return false;
    fused->gate = op.is<SwigluOp>() ? FusedLinearOp::Gate::swiglu : FusedLinearOp::Gate::geglu;
    before.rooms = std::exchange(before.outputs, op.outputs);
    return true;
  });
}

/// A norm of whole rows, then the linear that reads it.
void fold_norms(Graph& graph) {
  join_neighbours(graph, [&](Op& before, Op& op, const auto& readers) {
    const auto* norm = before.as<RmsNormOp>();
    auto fused = linear_of(op);
    if (norm == nullptr || !fused) return false;
    const ValueId x = before.inputs[0], normed = before.outputs[0];
    const WeightId scale = before.weights[0];
    if (op.inputs[0] != normed || readers(normed) != 1) return false;
    if (graph.weights[static_cast<size_t>(scale)].cols != graph.values[static_cast<size_t>(x)].width) return false;
    fused->norm = *norm;
    before = std::move(op);
    before.kind = *fused;
    before.inputs[0] = x;
    before.rooms.insert(before.rooms.begin(), normed);
    before.weights.push_back(scale);
    return true;
  });
}

/// Whether the two turn a head's pairs alike: where they stand on the circle is worked out for both.
bool turn_alike(const RopeOp& a, const RopeOp& b) {
  return a.head_dim == b.head_dim && a.rot_dim == b.rot_dim && a.style == b.style && a.base == b.base &&
         a.scale == b.scale;
}

/// rope(q), rope(k), then kv_append of that k.
std::optional<Op> append_of(const Graph& graph, const Op& q, const Op& k, const Op& append,
                            const std::vector<size_t>& readers) {
  const auto *of_q = q.as<RopeOp>(), *of_k = k.as<RopeOp>();
  const auto* kept = append.as<KvAppendOp>();
  if (of_q == nullptr || of_k == nullptr || kept == nullptr || !turn_alike(*of_q, *of_k)) return {};
  const ValueId turned = k.outputs[0];
  if (of_k->head_dim != graph.groups[kept->group].head_dim) return {};
  if (q.weights != k.weights || k.inputs[0] == q.outputs[0] || append.inputs[0] != turned) return {};
  if (append.inputs[1] == turned || readers[static_cast<size_t>(turned)] != 1) return {};
  const std::vector<ValueId> inputs{q.inputs[0], k.inputs[0], append.inputs[1]};
  return Op{FusedAppendOp{*of_q, *of_k, *kept},
            q.name + " + " + k.name + " + " + append.name,
            inputs,
            q.outputs,
            q.weights,
            {turned}};
}

void fold_ropes(Graph& graph) {
  const std::vector<size_t> readers = count_readers(graph);
  std::vector<Op> ops;
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    std::optional<Op> fused;
    if (i + 2 < graph.ops.size()) fused = append_of(graph, graph.ops[i], graph.ops[i + 1], graph.ops[i + 2], readers);
    ops.push_back(fused ? std::move(*fused) : std::move(graph.ops[i]));
    if (fused) i += 2;
  }
  graph.ops = std::move(ops);
}

}  // namespace

Graph fuse(const Graph& graph, const Fusion& fusion) {
  if (graph.fused) throw ValueError("fuse: expected a graph as its model has it, found one that is fused");
  Graph fused = graph;
  fused.fused = true;
  if (fusion.linears) {
    join_siblings(fused);
    fold_residuals(fused);
  }
  if (fusion.norms_and_gates) {
    fold_gates(fused);
    fold_norms(fused);
  }
  if (fusion.ropes) fold_ropes(fused);
  return fused;
}

}  // namespace foundry
