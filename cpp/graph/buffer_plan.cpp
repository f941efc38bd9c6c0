// Offsets by lifetime: values in the order in which they are defined, each at the lowest offset that no living value covers.
#include <algorithm>

#include "base/checked.h"
#include "graph/graph.h"

namespace foundry {

BufferPlan plan_buffers(const Graph& graph, uint32_t max_rows, uint32_t max_selected) {
  constexpr uint64_t kAlign = 64;
  constexpr size_t kNever = SIZE_MAX;
  const size_t n = graph.values.size();
  std::vector<size_t> first(n, kNever), last(n, 0);
  size_t select = graph.ops.size();
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const Op& op = graph.ops[i];
    if (op.is<SelectRowsOp>()) select = i;
    for (const auto& list : {op.outputs, op.rooms})
      for (const ValueId v : list) first[static_cast<size_t>(v)] = last[static_cast<size_t>(v)] = i;
    for (const ValueId v : op.inputs) last[static_cast<size_t>(v)] = i;
  }
  // The head runs again for each batch of selected rows, so what it reads of the body stays to the end; so do the logits.
  if (select < graph.ops.size()) last[static_cast<size_t>(graph.ops[select].inputs[0])] = graph.ops.size();
  if (graph.logits != kNone) last[static_cast<size_t>(graph.logits)] = graph.ops.size();

  BufferPlan plan;
  plan.offsets.assign(n, 0);
  const auto bytes = [&](size_t v) {
    const uint64_t rows = graph.values[v].rows == Rows::tokens ? max_rows : max_selected;
    return round_up(rows * graph.values[v].width * sizeof(float), kAlign);
  };
  std::vector<size_t> order;
  for (size_t v = 0; v < n; ++v)
    if (first[v] != kNever) order.push_back(v);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return first[a] < first[b]; });
  std::vector<size_t> placed;
  for (const size_t v : order) {
    std::vector<size_t> alive;
    for (const size_t p : placed)
      if (last[p] >= first[v] && first[p] <= last[v]) alive.push_back(p);
    std::sort(alive.begin(), alive.end(), [&](size_t a, size_t b) { return plan.offsets[a] < plan.offsets[b]; });
    uint64_t offset = 0;
    for (const size_t p : alive) {
      if (offset + bytes(v) <= plan.offsets[p]) break;
      offset = std::max(offset, plan.offsets[p] + bytes(p));
    }
    plan.offsets[v] = offset;
    plan.bytes = std::max(plan.bytes, offset + bytes(v));
    placed.push_back(v);
  }
  return plan;
}

}  // namespace foundry
