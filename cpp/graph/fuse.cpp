// Two fusions, neither of which changes an order of summation or a rounding: sibling linears become one op (their input is
// read, and quantised, once), and an add behind a linear becomes its epilogue.
#include "graph/graph.h"

namespace foundry {
namespace {

size_t readers(const Graph& graph, ValueId value) {
  size_t n = value == graph.logits ? 1 : 0;
  for (const Op& op : graph.ops)
    for (const ValueId in : op.inputs) n += in == value ? 1 : 0;
  return n;
}

/// A run of neighbouring linears over one value.
void join_siblings(Graph& graph) {
  std::vector<Op> ops;
  for (const Op& op : graph.ops) {
    if (!ops.empty() && op.kind == OpKind::linear && ops.back().kind == OpKind::linear && op.inputs.size() == 1 &&
        op.outputs.size() == 1 && ops.back().inputs == op.inputs) {
      Op& into = ops.back();
      const size_t n = into.outputs.size();
      into.outputs.push_back(op.outputs[0]);
      into.weights.insert(into.weights.begin() + static_cast<std::ptrdiff_t>(n), op.weights[0]);
      into.weights.push_back(op.weights[1]);
      into.name += " + " + op.name;
      continue;
    }
    ops.push_back(op);
  }
  graph.ops = std::move(ops);
}

/// linear, then add(residual, its result): the linear writes the sum.
void fold_residuals(Graph& graph) {
  std::vector<Op> ops;
  for (const Op& op : graph.ops) {
    if (op.kind == OpKind::add && !ops.empty() && ops.back().kind == OpKind::linear && ops.back().outputs.size() == 1 &&
        ops.back().inputs.size() == 1) {
      Op& linear = ops.back();
      const ValueId y = linear.outputs[0];
      const bool first = op.inputs[0] == y, second = op.inputs[1] == y;
      if (first != second && readers(graph, y) == 1) {
        linear.inputs.push_back(first ? op.inputs[1] : op.inputs[0]);
        linear.outputs[0] = op.outputs[0];
        linear.name += " + " + op.name;
        continue;
      }
    }
    ops.push_back(op);
  }
  graph.ops = std::move(ops);
}

}  // namespace

Graph fuse(const Graph& graph) {
  Graph fused = graph;
  join_siblings(fused);
  fold_residuals(fused);
  return fused;
}

}  // namespace foundry
