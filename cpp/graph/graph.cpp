#include "graph/graph.h"

#include <stdexcept>

#include "base/error.h"

namespace foundry {

namespace {

template <class T>
const T& entry(const std::vector<T>& list, int32_t id, const char* what) {
  if (id < 0 || static_cast<size_t>(id) >= list.size())
    throw ValueError(std::string(what) + ": expected an id from 0 to " +
                     std::to_string(static_cast<int64_t>(list.size()) - 1) + ", found " + std::to_string(id));
  return list[static_cast<size_t>(id)];
}

}  // namespace

WeightId Graph::weight(const std::string& name, uint64_t rows, uint64_t cols) {
  const auto [known, added] = ids_.try_emplace({name, rows, cols}, static_cast<WeightId>(weights.size()));
  if (added) weights.push_back({name, rows, cols});
  return known->second;
}

uint32_t Graph::add_group(const LayerGroup& group) {
  groups.push_back(group);
  return static_cast<uint32_t>(groups.size() - 1);
}

ValueId Graph::new_value(uint32_t width, Rows rows) {
  values.push_back({width, rows});
  return static_cast<ValueId>(values.size() - 1);
}

ValueId Graph::like(ValueId x) {
  const Value in = entry(values, x, "value");
  return new_value(in.width, in.rows);
}

ValueId Graph::embed(WeightId table, float scale, const std::string& name) {
  const ValueId y = new_value(static_cast<uint32_t>(entry(weights, table, "weight").cols), Rows::tokens);
  ops.push_back({EmbedOp{scale}, name, {}, {y}, {table}, {}});
  return y;
}

ValueId Graph::rms_norm(ValueId x, WeightId scale, float eps, const std::string& name) {
  const ValueId y = like(x);
  ops.push_back({RmsNormOp{eps}, name, {x}, {y}, {scale}, {}});
  return y;
}

ValueId Graph::linear(ValueId x, WeightId weight, WeightId bias, const std::string& name) {
  const Value in = entry(values, x, "value");
  const ValueId y = new_value(static_cast<uint32_t>(entry(weights, weight, "weight").rows), in.rows);
  ops.push_back({LinearOp{}, name, {x}, {y}, {weight, bias}, {}});
  return y;
}

ValueId Graph::rope(ValueId x, const RopeOp& rope, WeightId factors, const std::string& name) {
  const ValueId y = like(x);
  ops.push_back({rope, name, {x}, {y}, {factors}, {}});
  return y;
}

void Graph::kv_append(ValueId k, ValueId v, uint32_t group, uint32_t layer, const std::string& name) {
  ops.push_back({KvAppendOp{group, layer}, name, {k, v}, {}, {}, {}});
}

ValueId Graph::attention(ValueId q, uint32_t n_heads, float scale, uint32_t group, uint32_t layer,
                         const std::string& name) {
  const ValueId y = like(q);
  ops.push_back({AttentionOp{n_heads, scale, group, layer}, name, {q}, {y}, {}, {}});
  return y;
}

ValueId Graph::swiglu(ValueId gate, ValueId up, const std::string& name) {
  const ValueId y = like(gate);
  ops.push_back({SwigluOp{}, name, {gate, up}, {y}, {}, {}});
  return y;
}

ValueId Graph::geglu(ValueId gate, ValueId up, const std::string& name) {
  const ValueId y = like(gate);
  ops.push_back({GegluOp{}, name, {gate, up}, {y}, {}, {}});
  return y;
}

ValueId Graph::add(ValueId a, ValueId b, const std::string& name) {
  const ValueId y = like(a);
  ops.push_back({AddOp{}, name, {a, b}, {y}, {}, {}});
  return y;
}

ValueId Graph::select_rows(ValueId x, const std::string& name) {
  const ValueId y = new_value(entry(values, x, "value").width, Rows::selected);
  ops.push_back({SelectRowsOp{}, name, {x}, {y}, {}, {}});
  return y;
}

}  // namespace foundry
