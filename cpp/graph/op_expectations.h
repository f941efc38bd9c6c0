// What is expected of a graph's op: every error names the op, what was expected and what was found.
#pragma once
#include <cmath>
#include <string>

#include "base/error.h"
#include "graph/graph.h"

namespace foundry {

/// Of the op in hand.
class OpExpectations {
 protected:
  explicit OpExpectations(const Graph& graph) : graph_(graph) {}

  /// A file's fault; of a fused graph it is ours.
  [[noreturn]] void fault(const std::string& what) const {
    if (graph_.fused) throw ConsistencyError("fused graph: " + what);
    throw ModelFormatError(what);
  }
  [[noreturn]] void fail(const std::string& what) const { fault(op_->name + " (" + op_->kind_name() + "): " + what); }
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
  /// Of ops that know no experts.
  void one_matrix(const Op& op) const {
    for (const WeightId id : op.weights)
      if (id != kNone && graph_.weights[static_cast<size_t>(id)].experts != 0)
        fail("weight \"" + graph_.weights[static_cast<size_t>(id)].name + "\": expected one matrix, found experts");
  }
  void norm_weight(WeightId id, uint64_t width) const {
    const uint64_t cols = id == kNone ? 0 : graph_.weights[static_cast<size_t>(id)].cols;
    weight(id, 1, cols == 0 || width % cols != 0 ? width : cols);
  }
  void above_zero(const char* what, float value) const {
    if (!(value > 0) || !std::isfinite(value))
      fail(std::string(what) + ": expected a number above 0, found " + std::to_string(value));
  }
  void not_below_zero(const char* what, float value) const {
    if (!(value >= 0) || !std::isfinite(value))
      fail(std::string(what) + ": expected a number that is not below 0, found " + std::to_string(value));
  }
  void at_most(const char* what, uint64_t found, uint64_t most) const {
    if (found > most)
      fail(std::string(what) + ": expected at most the model's " + std::to_string(most) + ", found " +
           std::to_string(found));
  }
  void rows_are(ValueId id, Rows rows) const {
    if (value(id).rows != rows)
      fail(std::string("rows: expected ") + (rows == Rows::tokens ? "tokens" : "selected") + ", found " + shape(id));
  }

  const Graph& graph_;
  const Op* op_ = nullptr;
};

}  // namespace foundry
