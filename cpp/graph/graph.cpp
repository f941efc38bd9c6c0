#include "graph/graph.h"

#include <stdexcept>

#include "base/error.h"

namespace foundry {

const char* op_name(OpKind kind) {
  switch (kind) {
    case OpKind::embed:
      return "embed";
    case OpKind::rms_norm:
      return "rms_norm";
    case OpKind::linear:
      return "linear";
    case OpKind::rope:
      return "rope";
    case OpKind::kv_append:
      return "kv_append";
    case OpKind::attention:
      return "attention";
    case OpKind::swiglu:
      return "swiglu";
    case OpKind::geglu:
      return "geglu";
    case OpKind::add:
      return "add";
    case OpKind::select_rows:
      return "select_rows";
  }
  return "unknown";
}

namespace {

template <class T>
const T& entry(const std::vector<T>& list, int32_t id, const char* what) {
  if (id < 0 || static_cast<size_t>(id) >= list.size())
    throw ValueError(std::string(what) + ": expected an id from 0 to " +
                     std::to_string(static_cast<int64_t>(list.size()) - 1) + ", found " + std::to_string(id));
  return list[static_cast<size_t>(id)];
}

Op make_op(OpKind kind, const std::string& name, std::vector<ValueId> inputs, std::vector<ValueId> outputs,
           std::vector<WeightId> weights) {
  Op op;
  op.kind = kind;
  op.name = name;
  op.inputs = std::move(inputs);
  op.outputs = std::move(outputs);
  op.weights = std::move(weights);
  return op;
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

ValueId Graph::embed(WeightId table, float scale, const std::string& name) {
  const ValueId y = new_value(static_cast<uint32_t>(entry(weights, table, "weight").cols), Rows::tokens);
  ops.push_back(make_op(OpKind::embed, name, {}, {y}, {table}));
  ops.back().scale = scale;
  return y;
}

ValueId Graph::rms_norm(ValueId x, WeightId scale, float eps, const std::string& name) {
  const Value in = entry(values, x, "value");
  const ValueId y = new_value(in.width, in.rows);
  ops.push_back(make_op(OpKind::rms_norm, name, {x}, {y}, {scale}));
  ops.back().eps = eps;
  return y;
}

ValueId Graph::linear(ValueId x, WeightId weight, WeightId bias, const std::string& name) {
  const Value in = entry(values, x, "value");
  const ValueId y = new_value(static_cast<uint32_t>(entry(weights, weight, "weight").rows), in.rows);
  ops.push_back(make_op(OpKind::linear, name, {x}, {y}, {weight, bias}));
  return y;
}

ValueId Graph::rope(ValueId x, uint32_t n_heads, uint32_t head_dim, uint32_t rot_dim, float base, float scale,
                    uint32_t style, WeightId factors, const std::string& name) {
  const Value in = entry(values, x, "value");
  const ValueId y = new_value(in.width, in.rows);
  ops.push_back(make_op(OpKind::rope, name, {x}, {y}, {factors}));
  Op& op = ops.back();
  op.n_heads = n_heads;
  op.head_dim = head_dim;
  op.rot_dim = rot_dim;
  op.rope_base = base;
  op.scale = scale;
  op.rope_style = style;
  return y;
}

void Graph::kv_append(ValueId k, ValueId v, uint32_t group, uint32_t layer, const std::string& name) {
  ops.push_back(make_op(OpKind::kv_append, name, {k, v}, {}, {}));
  Op& op = ops.back();
  op.group = group;
  op.layer = layer;
  if (group < groups.size()) op.head_dim = groups[group].head_dim;
}

ValueId Graph::attention(ValueId q, uint32_t n_heads, float scale, uint32_t group, uint32_t layer,
                         const std::string& name) {
  const Value in = entry(values, q, "value");
  const ValueId y = new_value(in.width, in.rows);
  ops.push_back(make_op(OpKind::attention, name, {q}, {y}, {}));
  Op& op = ops.back();
  op.n_heads = n_heads;
  op.scale = scale;
  op.group = group;
  op.layer = layer;
  if (group < groups.size()) {
    op.head_dim = groups[group].head_dim;
    op.window = groups[group].window;
  }
  return y;
}

ValueId Graph::swiglu(ValueId gate, ValueId up, const std::string& name) {
  const Value in = entry(values, gate, "value");
  const ValueId y = new_value(in.width, in.rows);
  ops.push_back(make_op(OpKind::swiglu, name, {gate, up}, {y}, {}));
  return y;
}

ValueId Graph::geglu(ValueId gate, ValueId up, const std::string& name) {
  const ValueId y = swiglu(gate, up, name);
  ops.back().kind = OpKind::geglu;
  return y;
}

ValueId Graph::add(ValueId a, ValueId b, const std::string& name) {
  const Value in = entry(values, a, "value");
  const ValueId y = new_value(in.width, in.rows);
  ops.push_back(make_op(OpKind::add, name, {a, b}, {y}, {}));
  return y;
}

ValueId Graph::select_rows(ValueId x, const std::string& name) {
  const ValueId y = new_value(entry(values, x, "value").width, Rows::selected);
  ops.push_back(make_op(OpKind::select_rows, name, {x}, {y}, {}));
  return y;
}

}  // namespace foundry
