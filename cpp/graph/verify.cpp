// What makes a graph legal, one rule a kind. Every error names the op, what was expected and what was found.
#include <algorithm>
#include <set>
#include <string>

#include "base/error.h"
#include "graph/graph.h"

namespace foundry {
namespace {

class Verifier {
 public:
  explicit Verifier(const Graph& graph)
      : graph_(graph), defined_(graph.values.size(), false), ever_defined_(defined_) {}

  void run() {
    for (const LayerGroup& group : graph_.groups)
      if (group.n_layers == 0 || group.n_kv_heads == 0 || group.head_dim == 0 || group.head_dim % 8 != 0)
        throw ModelFormatError("layer group: expected layers, KV heads and a head_dim that is a multiple of 8, found " +
                               std::to_string(group.n_layers) + ", " + std::to_string(group.n_kv_heads) + ", " +
                               std::to_string(group.head_dim));
    for (const Op& op : graph_.ops) {
      op_ = &op;
      for (const ValueId id : op.inputs) {
        id_in_range(id, graph_.values.size(), "input value");
        if (!defined_[static_cast<size_t>(id)])
          fail("value " + std::to_string(id) + " is read before an op defines it");
      }
      for (const WeightId id : op.weights)
        if (id != kNone) id_in_range(id, graph_.weights.size(), "weight");
      for (const ValueId id : op.outputs) {
        id_in_range(id, graph_.values.size(), "output value");
        if (ever_defined_[static_cast<size_t>(id)]) fail("value " + std::to_string(id) + " is defined twice");
        ever_defined_[static_cast<size_t>(id)] = true;
      }
      shapes(op);
      for (const ValueId id : op.outputs) defined_[static_cast<size_t>(id)] = true;
    }
    if (selects_ != 1) throw ModelFormatError("graph: expected one select_rows, found " + std::to_string(selects_));
    if (graph_.logits < 0 || static_cast<size_t>(graph_.logits) >= graph_.values.size() ||
        !defined_[static_cast<size_t>(graph_.logits)])
      throw ModelFormatError("graph: expected logits that an op defines, found value " + std::to_string(graph_.logits));
    const Value& logits = graph_.values[static_cast<size_t>(graph_.logits)];
    if (logits.rows != Rows::selected || logits.width != graph_.arch.vocab_size)
      throw ModelFormatError("graph: logits: expected [selected, " + std::to_string(graph_.arch.vocab_size) +
                             "], found " + shape(graph_.logits));
    if (graph_.arch.max_seq_len == 0) throw ModelFormatError("graph: max_seq_len: expected at least 1, found 0");
    if (graph_.groups.empty()) throw ModelFormatError("graph: expected at least one layer group, found none");
    uint64_t layers = 0;  // each takes memory in every page
    for (const LayerGroup& group : graph_.groups) layers += group.n_layers;
    if (layers > std::max<uint64_t>(appended_.size(), graph_.groups.size()))
      throw ModelFormatError("graph: expected a kv_append for each of the groups' " + std::to_string(layers) +
                             " layers, found " + std::to_string(appended_.size()));
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw ModelFormatError(op_->name + " (" + op_name(op_->kind) + "): " + what);
  }
  const Value& value(ValueId id) const { return graph_.values[static_cast<size_t>(id)]; }
  std::string shape(ValueId id) const {
    return std::string("[") + (value(id).rows == Rows::tokens ? "tokens" : "selected") + ", " +
           std::to_string(value(id).width) + "]";
  }
  void id_in_range(int32_t id, size_t size, const char* what) const {
    if (id < 0 || static_cast<size_t>(id) >= size)
      fail(std::string(what) + ": expected an id below " + std::to_string(size) + ", found " + std::to_string(id));
  }
  void count(const char* what, size_t found, size_t least, size_t most) const {
    if (found < least || found > most)
      fail(std::string(what) + ": expected " + std::to_string(least) +
           (most > least ? " to " + std::to_string(most) : "") + ", found " + std::to_string(found));
  }
  void counts(size_t inputs, size_t outputs, size_t weights) const {
    count("inputs", op_->inputs.size(), inputs, inputs);
    count("outputs", op_->outputs.size(), outputs, outputs);
    count("weights", op_->weights.size(), weights, weights);
  }
  void same_shape(ValueId a, ValueId b) const {
    if (value(a).width != value(b).width || value(a).rows != value(b).rows)
      fail("expected " + shape(a) + ", found " + shape(b));
  }
  void width(ValueId id, uint64_t expected) const {
    if (value(id).width != expected) fail("expected a width of " + std::to_string(expected) + ", found " + shape(id));
  }
  void weight(WeightId id, uint64_t rows, uint64_t cols) const {
    if (id == kNone) fail("a weight is missing");
    const WeightRef& w = graph_.weights[static_cast<size_t>(id)];
    if (w.rows != rows || w.cols != cols)
      fail("weight \"" + w.name + "\": expected [" + std::to_string(rows) + ", " + std::to_string(cols) + "], found [" +
           std::to_string(w.rows) + ", " + std::to_string(w.cols) + "]");
  }
  void norm_weight(WeightId id, uint64_t width) const {
    const uint64_t cols = id == kNone ? 0 : graph_.weights[static_cast<size_t>(id)].cols;
    weight(id, 1, cols == 0 || width % cols != 0 ? width : cols);
  }
  void above_zero(const char* what, float value) const {
    if (!(value > 0)) fail(std::string(what) + ": expected above 0, found " + std::to_string(value));
  }
  const LayerGroup& group() const {
    if (op_->group >= graph_.groups.size() || op_->layer >= graph_.groups[op_->group].n_layers)
      fail("layer " + std::to_string(op_->layer) + " of group " + std::to_string(op_->group) +
           " is not in the graph's groups");
    return graph_.groups[op_->group];
  }
  void body_only() const {
    if (selects_ != 0) fail("expected before select_rows, found after it");
  }

  void shapes(const Op& op) {
    switch (op.kind) {
      case OpKind::embed: {
        counts(0, 1, 1);
        body_only();
        weight(op.weights[0], graph_.arch.vocab_size, value(op.outputs[0]).width);
        rows_are(op.outputs[0], Rows::tokens);
        above_zero("scale", op.scale);
        break;
      }
      case OpKind::rms_norm:
        counts(1, 1, 1);
        same_shape(op.inputs[0], op.outputs[0]);
        norm_weight(op.weights[0], value(op.inputs[0]).width);
        above_zero("eps", op.eps);
        break;
      case OpKind::linear: {
        const size_t n = op.outputs.size();
        if (n == 0) fail("outputs: expected at least 1, found 0");
        count("inputs", op.inputs.size(), 1, n == 1 ? 2 : 1);
        count("weights", op.weights.size(), 2 * n, 2 * n);
        for (size_t i = 0; i < n; ++i) {
          weight(op.weights[i], value(op.outputs[i]).width, value(op.inputs[0]).width);
          if (op.weights[n + i] != kNone) weight(op.weights[n + i], 1, value(op.outputs[i]).width);
          rows_are(op.outputs[i], value(op.inputs[0]).rows);
        }
        if (op.inputs.size() == 2) same_shape(op.outputs[0], op.inputs[1]);
        break;
      }
      case OpKind::rope:
        counts(1, 1, 1);
        body_only();
        same_shape(op.inputs[0], op.outputs[0]);
        width(op.inputs[0], uint64_t{op.n_heads} * op.head_dim);
        if (op.rot_dim == 0 || op.rot_dim % 2 != 0 || op.rot_dim > op.head_dim)
          fail("rot_dim: expected even, from 2 to " + std::to_string(op.head_dim) + ", found " +
               std::to_string(op.rot_dim));
        if (op.rope_style > 1) fail("style: expected 0 or 1, found " + std::to_string(op.rope_style));
        above_zero("base", op.rope_base);
        above_zero("scale", op.scale);
        if (op.weights[0] != kNone) weight(op.weights[0], 1, op.rot_dim / 2);
        break;
      case OpKind::kv_append: {
        counts(2, 0, 0);
        body_only();
        const LayerGroup& g = group();
        for (const ValueId id : op.inputs) width(id, uint64_t{g.n_kv_heads} * g.head_dim);
        if (!appended_.insert({op.group, op.layer}).second) fail("the layer's K and V are appended twice");
        break;
      }
      case OpKind::attention: {
        counts(1, 1, 0);
        body_only();
        const LayerGroup& g = group();
        same_shape(op.inputs[0], op.outputs[0]);
        width(op.inputs[0], uint64_t{op.n_heads} * g.head_dim);
        if (op.n_heads == 0 || op.n_heads % g.n_kv_heads != 0)
          fail("n_heads: expected a multiple of n_kv_heads, " + std::to_string(g.n_kv_heads) + ", found " +
               std::to_string(op.n_heads));
        if (op.window != g.window)
          fail("window: expected the group's, " + std::to_string(g.window) + ", found " + std::to_string(op.window));
        if (appended_.count({op.group, op.layer}) == 0) fail("expected the layer's kv_append before it, found none");
        break;
      }
      case OpKind::swiglu:
      case OpKind::geglu:
      case OpKind::add:
        counts(2, 1, 0);
        same_shape(op.inputs[0], op.inputs[1]);
        same_shape(op.inputs[0], op.outputs[0]);
        break;
      case OpKind::select_rows:
        counts(1, 1, 0);
        body_only();
        width(op.outputs[0], value(op.inputs[0]).width);
        rows_are(op.outputs[0], Rows::selected);
        ++selects_;
        // The head runs apart from the body: it may read nothing else of it.
        for (size_t i = 0; i < defined_.size(); ++i)
          defined_[i] = defined_[i] && graph_.values[i].rows == Rows::selected;
        break;
    }
  }
  void rows_are(ValueId id, Rows rows) const {
    if (value(id).rows != rows)
      fail(std::string("rows: expected ") + (rows == Rows::tokens ? "tokens" : "selected") + ", found " + shape(id));
  }

  const Graph& graph_;
  const Op* op_ = nullptr;
  std::vector<bool> defined_;  // and readable: the head sees nothing of the body
  std::vector<bool> ever_defined_;
  std::set<std::pair<uint32_t, uint32_t>> appended_;
  size_t selects_ = 0;
};

}  // namespace

void verify(const Graph& graph) { Verifier(graph).run(); }

}  // namespace foundry
