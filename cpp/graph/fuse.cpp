// Two fusions, neither of which changes an order of summation or a rounding: sibling linears become one op (their input is
// read, and quantised, once), and an add behind a linear becomes its epilogue.
#include <algorithm>

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

void chain(Graph& graph) {
  for (size_t i = 0; i + 1 < graph.ops.size(); ++i) {
    Op& op = graph.ops[i];
    const Op& next = graph.ops[i + 1];
    const bool only =
        std::all_of(op.outputs.begin(), op.outputs.end(), [&](ValueId value) { return readers(graph, value) == 1; });
    if (op.kind == OpKind::rms_norm) {
      const ValueId x = op.inputs[0];
      op.with_next =
          only && next.kind == OpKind::linear && next.inputs[0] == op.outputs[0] &&
          graph.weights[static_cast<size_t>(op.weights[0])].cols == graph.values[static_cast<size_t>(x)].width;
    } else if (op.kind == OpKind::linear && op.outputs.size() == 2) {
      op.with_next = only && (next.kind == OpKind::swiglu || next.kind == OpKind::geglu) && next.inputs == op.outputs &&
                     op.inputs.size() == 1 && op.weights[2] == kNone && op.weights[3] == kNone;
    }
  }
}

Graph fuse(const Graph& graph) {
  Graph fused = graph;
  join_siblings(fused);
  fold_residuals(fused);
  return fused;
}

}  // namespace foundry
