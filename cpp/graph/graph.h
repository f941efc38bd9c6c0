// The graph of a model: ops (ops.h) over f32 activations, and numbers of experts in i32, in the order in which they run. Emitted by
// python/foundry/models/*.py, serialised as text (serialize.cpp), verified (verify.cpp), fused per device (fuse.cpp)
// and given buffers by lifetime (buffer_plan.cpp). Rows are symbolic: `tokens` before select_rows, `selected` after it.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "graph/ops.h"

namespace foundry {

enum class Rows : uint32_t { tokens, selected };

enum class Holds : uint32_t { numbers, experts };  // f32, or i32: which experts a row goes through

struct Value {
  uint32_t width = 0;
  Rows rows = Rows::tokens;
  Holds holds = Holds::numbers;
};

/// A weight by its name in the model file, with the shape that the op expects (a vector is 1 x cols). It may be a part of a
/// tensor, or no tensor at all but a vector of the graph's own.
struct WeightRef {
  std::string name;
  uint64_t rows = 0;
  uint64_t cols = 0;
  uint64_t first = 0;  // the part's first row, or, of a vector, value
  uint64_t whole = 0;  // rows (of a vector: values) of the tensor that it is a part of; 0: it is all of it
  std::vector<float> constant = {};  // [cols] where the file has nothing of it; `name` then tells what it is
  uint64_t experts = 0;              // 0: one matrix; else so many of rows x cols, in one tensor of three dimensions
};

/// Layers that share a page: same heads, same head_dim, same window.
struct LayerGroup {
  uint32_t n_layers = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t window = 0;  // 0: full
};

/// Recurrent layers, of which each keeps some values of all tokens so far: a state is theirs side by side. A layer's may
/// be several parts, one for each op that keeps something.
struct RecurrentGroup {
  uint32_t n_layers = 0;         // 0: there are none
  std::vector<uint32_t> widths;  // values of each part of a layer's
  uint64_t width() const { return at(widths.size()); }
  /// Values of a layer's before this part.
  uint64_t at(size_t part) const {
    uint64_t sum = 0;
    for (size_t i = 0; i < part; ++i) sum += widths[i];
    return sum;
  }
};

/// The figures of a model. Where layers differ, n_heads, n_kv_heads and head_dim are the largest of them.
struct Arch {
  std::string name;
  uint32_t n_layers = 0;
  uint32_t n_heads = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t hidden_size = 0;
  uint32_t vocab_size = 0;
  uint32_t max_seq_len = 0;
};

class Graph {
 public:
  Arch arch;
  std::vector<LayerGroup> groups;
  RecurrentGroup recurrent;
  std::vector<WeightRef> weights;
  std::vector<Value> values;
  std::vector<Op> ops;
  ValueId logits = kNone;  // [selected, vocab]
  bool fused = false;      // made by fuse(): a device's, never written or read

  // Builders: used by the model files. Widths follow from the inputs and weights; wrong ones are verify()'s business.
  WeightId weight(const std::string& name, uint64_t rows, uint64_t cols);  // the same name gives the same id
  /// Rows first .. first + rows (of a vector: values) of a tensor that has `whole` of them.
  WeightId part(const std::string& name, uint64_t rows, uint64_t cols, uint64_t first, uint64_t whole);
  /// A vector that is no tensor of the file. `what` is for errors, and names these values alone.
  WeightId constant(const std::string& what, const std::vector<float>& values);
  /// A tensor of `experts` matrices, or of so many vectors where rows is 1.
  WeightId experts(const std::string& name, uint64_t experts, uint64_t rows, uint64_t cols);
  uint32_t add_group(const LayerGroup& group);
  ValueId embed(WeightId table, float scale, const std::string& name);
  ValueId rms_norm(ValueId x, WeightId scale, float eps, const std::string& name);
  ValueId layer_norm(ValueId x, WeightId scale, WeightId bias, float eps, const std::string& name);
  ValueId linear(ValueId x, WeightId weight, WeightId bias, const std::string& name);
  ValueId rope(ValueId x, const RopeOp& rope, WeightId factors, const std::string& name);
  void kv_append(ValueId k, ValueId v, uint32_t group, uint32_t layer, const std::string& name);
  /// The result is as wide as q.
  ValueId attention(ValueId q, const AttentionOp& attention, const std::string& name, WeightId sinks = kNone);
  ValueId swiglu(ValueId gate, ValueId up, const std::string& name);
  ValueId geglu(ValueId gate, ValueId up, const std::string& name);
  ValueId swiglu_clamped(ValueId gate, ValueId up, const SwigluClampedOp& swiglu, const std::string& name);
  ValueId gelu(ValueId x, const std::string& name);
  ValueId scale(ValueId x, const ScaleOp& scale, const std::string& name);
  ValueId resize_heads(ValueId x, const ResizeHeadsOp& resize, const std::string& name);
  ValueId add(ValueId a, ValueId b, const std::string& name);
  struct Routed {
    ValueId chosen, weights;  // [rows, n_used] each
  };
  Routed route(ValueId scores, const RouteOp& route, WeightId bias, const std::string& name);
  ValueId linear_routed(ValueId x, ValueId chosen, WeightId weight, WeightId bias, const std::string& name);
  ValueId sum_routed(ValueId y, ValueId weights, const std::string& name);
  /// Taps [channels, taps]; gated, the result is a third as wide as x.
  ValueId short_conv(ValueId x, const ShortConvOp& conv, WeightId taps, WeightId bias, const std::string& name);
  /// Of `mixed` (q, k and v), alpha, beta and z, with decay [1, v_heads], its bias, and the norm's scale [1, head_v].
  ValueId gated_delta(const std::array<ValueId, 4>& inputs, const GatedDeltaOp& delta,
                      const std::array<WeightId, 3>& weights, const std::string& name);
  ValueId sigmoid_gate(ValueId x, ValueId gate, const SigmoidGateOp& op, const std::string& name);
  ValueId select_rows(ValueId x, const std::string& name);

  /// The hidden state behind the last norm, [selected, hidden], from which the logits are made: what the norm right
  /// behind select_rows gives, in a fused graph too. kNone where there is no such norm.
  ValueId hidden() const;

  /// ValueError for a fused graph.
  std::string serialize() const;
  /// Throws ModelFormatError with the line.
  static Graph parse(const std::string& text);
  /// Of what is computed: of all but the names of ops, which only errors tell. ValueError for a fused graph.
  uint64_t hash() const;

 private:
  ValueId new_value(uint32_t width, Rows rows);
  ValueId like(ValueId x);
  WeightId known(WeightRef ref);
  std::map<std::tuple<std::string, uint64_t, uint64_t, uint64_t, uint64_t>, WeightId>
      ids_;  // of weights: name, rows, cols, first, experts
};

/// Throws what names the op, expected and found: ModelFormatError, or ConsistencyError where the graph is fused, for
/// fusing is ours. Ids in range, values defined before use, and what each kind wants: widths as the weights and heads
/// have them, no more heads than arch has, n_heads a multiple of n_kv_heads, a group's head_dim a multiple of 8 and at
/// most arch's filled up to 32, parts inside their tensors, no more experts chosen than there are and their numbers
/// read by routed ops alone, each part of each recurrent layer's state of one op, and no windows beside them, a K/V append
/// before each attention of its layer, one select_rows, logits [selected, vocab], fused ops in fused graphs alone.
void verify(const Graph& graph);

/// What a device runs in one call.
struct Fusion {
  bool linears = true;  // siblings that read one value; and a linear with the add behind it, its only reader
  bool norms_and_gates =
      false;           // a norm of whole rows with the linear behind it, its only reader; and (gate, up) without
                       // biases, which nobody else reads, with their swiglu or geglu
  bool ropes = false;  // those of Q and of K, by the same turns, with the kv_append behind them, turned K's only reader
};

/// Joins what is run in one call to one op, fused_linear or fused_append. The result verifies, and gives the same bits: fusions change
/// neither an order of summation nor a rounding. ValueError for a graph that is fused already.
Graph fuse(const Graph& graph, const Fusion& fusion);

/// Byte offsets of the activations in one arena, by lifetime: two values share bytes only when they are never alive together.
/// A value in rows `tokens` holds max_rows x width floats, `selected` max_selected x width. Offsets are 64-byte aligned.
struct BufferPlan {
  std::vector<uint64_t> offsets;  // by ValueId
  uint64_t bytes = 0;
};
BufferPlan plan_buffers(const Graph& graph, uint32_t max_rows, uint32_t max_selected);

}  // namespace foundry
