#include "graph/graph.h"

#include <stdexcept>
#include <utility>

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

WeightId Graph::weight(const std::string& name, uint64_t rows, uint64_t cols) { return known({name, rows, cols}); }

WeightId Graph::part(const std::string& name, uint64_t rows, uint64_t cols, uint64_t first, uint64_t whole) {
  return known({name, rows, cols, first, whole});
}

WeightId Graph::constant(const std::string& what, const std::vector<float>& values) {
  return known({what, 1, values.size(), 0, 0, values});
}

WeightId Graph::experts(const std::string& name, uint64_t experts, uint64_t rows, uint64_t cols) {
  return known({name, rows, cols, 0, 0, {}, experts});
}

WeightId Graph::known(WeightRef ref) {
  const auto [found, added] =
      ids_.try_emplace({ref.name, ref.rows, ref.cols, ref.first, ref.experts}, static_cast<WeightId>(weights.size()));
  if (added) weights.push_back(std::move(ref));
  return found->second;
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

ValueId Graph::layer_norm(ValueId x, WeightId scale, WeightId bias, float eps, const std::string& name) {
  const ValueId y = like(x);
  ops.push_back({LayerNormOp{eps}, name, {x}, {y}, {scale, bias}, {}});
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

ValueId Graph::attention(ValueId q, const AttentionOp& attention, const std::string& name, WeightId sinks) {
  const ValueId y = like(q);
  ops.push_back({attention, name, {q}, {y}, {}, {}});
  if (sinks != kNone) ops.back().weights.push_back(sinks);
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

ValueId Graph::swiglu_clamped(ValueId gate, ValueId up, const SwigluClampedOp& swiglu, const std::string& name) {
  const ValueId y = like(gate);
  ops.push_back({swiglu, name, {gate, up}, {y}, {}, {}});
  return y;
}

ValueId Graph::gelu(ValueId x, const std::string& name) {
  const ValueId y = like(x);
  ops.push_back({GeluOp{}, name, {x}, {y}, {}, {}});
  return y;
}

ValueId Graph::scale(ValueId x, const ScaleOp& scale, const std::string& name) {
  const ValueId y = like(x);
  ops.push_back({scale, name, {x}, {y}, {}, {}});
  return y;
}

ValueId Graph::resize_heads(ValueId x, const ResizeHeadsOp& resize, const std::string& name) {
  const Value in = entry(values, x, "value");
  const ValueId y = new_value(resize.n_heads * resize.to, in.rows);
  ops.push_back({resize, name, {x}, {y}, {}, {}});
  return y;
}

ValueId Graph::add(ValueId a, ValueId b, const std::string& name) {
  const ValueId y = like(a);
  ops.push_back({AddOp{}, name, {a, b}, {y}, {}, {}});
  return y;
}

Graph::Routed Graph::route(ValueId scores, const RouteOp& route, WeightId bias, const std::string& name) {
  const Rows rows = entry(values, scores, "value").rows;
  const Routed made{new_value(route.n_used, rows), new_value(route.n_used, rows)};
  values[static_cast<size_t>(made.chosen)].holds = Holds::experts;
  ops.push_back({route, name, {scores}, {made.chosen, made.weights}, {bias}, {}});
  return made;
}

ValueId Graph::linear_routed(ValueId x, ValueId chosen, WeightId weight, WeightId bias, const std::string& name) {
  const Value in = entry(values, x, "value");
  const uint64_t width = uint64_t{entry(values, chosen, "value").width} * entry(weights, weight, "weight").rows;
  const ValueId y = new_value(static_cast<uint32_t>(width), in.rows);
  ops.push_back({LinearRoutedOp{}, name, {x, chosen}, {y}, {weight, bias}, {}});
  return y;
}

ValueId Graph::sum_routed(ValueId y, ValueId weights, const std::string& name) {
  const Value in = entry(values, y, "value");
  const uint32_t parts = entry(values, weights, "value").width;
  const ValueId x = new_value(parts == 0 ? 0 : in.width / parts, in.rows);
  ops.push_back({SumRoutedOp{}, name, {y, weights}, {x}, {}, {}});
  return x;
}

ValueId Graph::short_conv(ValueId x, const ShortConvOp& conv, WeightId taps, WeightId bias, const std::string& name) {
  const Rows rows = entry(values, x, "value").rows;
  const ValueId y = new_value(static_cast<uint32_t>(entry(weights, taps, "weight").rows), rows);
  ops.push_back({conv, name, {x}, {y}, {taps, bias}, {}});
  return y;
}

ValueId Graph::gated_delta(const std::array<ValueId, 4>& inputs, const GatedDeltaOp& delta,
                           const std::array<WeightId, 3>& weights, const std::string& name) {
  const Value z = entry(values, inputs[3], "value");
  const ValueId y = new_value(z.width, z.rows);
  ops.push_back({delta, name, {inputs.begin(), inputs.end()}, {y}, {weights.begin(), weights.end()}, {}});
  return y;
}

ValueId Graph::sigmoid_gate(ValueId x, ValueId gate, const SigmoidGateOp& op, const std::string& name) {
  const Value in = entry(values, x, "value");
  const ValueId y = new_value(in.width, in.rows);
  ops.push_back({op, name, {x, gate}, {y}, {}, {}});
  return y;
}

ValueId Graph::select_rows(ValueId x, const std::string& name) {
  const ValueId y = new_value(entry(values, x, "value").width, Rows::selected);
  ops.push_back({SelectRowsOp{}, name, {x}, {y}, {}, {}});
  return y;
}

ValueId Graph::hidden() const {
  for (size_t i = 1; i < ops.size(); ++i) {
    const Op& op = ops[i];
    if (!ops[i - 1].is<SelectRowsOp>() || op.inputs != ops[i - 1].outputs) continue;
    if (op.is<RmsNormOp>() || op.is<LayerNormOp>()) return op.outputs[0];
    if (const auto* linear = op.as<FusedLinearOp>(); linear != nullptr && linear->norm) return op.rooms[0];
  }
  return kNone;
}

}  // namespace foundry
