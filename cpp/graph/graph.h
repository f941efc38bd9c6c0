// The graph of a model: ops over f32 activations, in the order in which they run. Emitted by python/foundry/models/*.py,
// serialised as text (serialize.cpp), verified (verify.cpp), fused per device (fuse.cpp) and given buffers by lifetime
// (buffer_plan.cpp). Rows are symbolic: `tokens` before select_rows, `selected` after it.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace foundry {

using ValueId = int32_t;
using WeightId = int32_t;
inline constexpr int32_t kNone = -1;

enum class OpKind : uint32_t { embed, rms_norm, linear, rope, kv_append, attention, swiglu, geglu, add, select_rows };
const char* op_name(OpKind kind);

enum class Rows : uint32_t { tokens, selected };

struct Value {
  uint32_t width = 0;
  Rows rows = Rows::tokens;
};

/// A weight by its name in the model file, with the shape that the op expects (a vector is 1 x cols).
struct WeightRef {
  std::string name;
  uint64_t rows = 0;
  uint64_t cols = 0;
};

/// Layers that share a page: same heads, same head_dim, same window.
struct LayerGroup {
  uint32_t n_layers = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t window = 0;  // 0: full
};

/// Inputs, outputs and weights by kind:
///   embed       ()             -> (x)         weights (table); times `scale`
///   rms_norm    (x)            -> (y)         weights (scale); over as many values as the scale has: a row, or a head of it
///   linear      (x [, residual]) -> (y...)    weights (w... , then biases..., kNone where there is none); one w and one bias per y
///   rope        (x)            -> (y)         weights (factors or kNone); positions times `scale`
///   kv_append   (k, v)         -> ()
///   attention   (q)            -> (y)
///   swiglu      (gate, up)     -> (y)         geglu likewise
///   add         (a, b)         -> (y)
///   select_rows (x)            -> (y)
struct Op {
  OpKind kind{};
  bool with_next = false;  // one launch with the op behind it (chain); not serialised: a device's business
  std::string name;        // "layer 3 attention", for errors
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  std::vector<WeightId> weights;
  // Attributes; zero where a kind has none.
  float eps = 0;          // rms_norm
  float scale = 0;        // embed, rope, attention
  float rope_base = 0;    // rope
  uint32_t n_heads = 0;   // rope, attention
  uint32_t head_dim = 0;  // rope, attention, kv_append
  uint32_t rot_dim = 0;   // rope
  uint32_t rope_style = 0;
  uint32_t group = 0;  // attention, kv_append: layer group
  uint32_t layer = 0;  // attention, kv_append: layer inside the group
  uint32_t window = 0;
};

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
  std::vector<WeightRef> weights;
  std::vector<Value> values;
  std::vector<Op> ops;
  ValueId logits = kNone;  // [selected, vocab]

  // Builders: used by the model files. Widths follow from the inputs and weights; wrong ones are verify()'s business.
  WeightId weight(const std::string& name, uint64_t rows, uint64_t cols);  // the same name gives the same id
  uint32_t add_group(const LayerGroup& group);
  ValueId embed(WeightId table, float scale, const std::string& name);
  ValueId rms_norm(ValueId x, WeightId scale, float eps, const std::string& name);
  ValueId linear(ValueId x, WeightId weight, WeightId bias, const std::string& name);
  ValueId rope(ValueId x, uint32_t n_heads, uint32_t head_dim, uint32_t rot_dim, float base, float scale,
               uint32_t style, WeightId factors, const std::string& name);
  void kv_append(ValueId k, ValueId v, uint32_t group, uint32_t layer, const std::string& name);
  ValueId attention(ValueId q, uint32_t n_heads, float scale, uint32_t group, uint32_t layer, const std::string& name);
  ValueId swiglu(ValueId gate, ValueId up, const std::string& name);
  ValueId geglu(ValueId gate, ValueId up, const std::string& name);
  ValueId add(ValueId a, ValueId b, const std::string& name);
  ValueId select_rows(ValueId x, const std::string& name);

  std::string serialize() const;
  /// Throws ModelFormatError with the line.
  static Graph parse(const std::string& text);

 private:
  ValueId new_value(uint32_t width, Rows rows);
  std::map<std::tuple<std::string, uint64_t, uint64_t>, WeightId> ids_;  // of weights
};

/// Throws ModelFormatError that names the op, expected and found shapes: ids in range, values defined before use, widths,
/// heads x head_dim, head_dim a multiple of 8, n_heads a multiple of n_kv_heads, a K/V append before each attention of its layer,
/// one select_rows, logits [selected, vocab].
void verify(const Graph& graph);

/// Siblings that read one value become one linear; an add that follows its only producer becomes the linear's residual.
/// The result verifies, and gives the same bits: fusions change neither an order of summation nor a rounding.
Graph fuse(const Graph& graph);

/// For devices that run them as one: marks an rms_norm whose only reader is the linear behind it, and a linear (gate, up), without biases,
/// whose only reader is the swiglu or geglu behind it. Values in between are then room that nobody else may have at that time.
void chain(Graph& graph);

/// Byte offsets of the activations in one arena, by lifetime: two values share bytes only when they are never alive together.
/// A value in rows `tokens` holds max_rows x width floats, `selected` max_selected x width. Offsets are 64-byte aligned.
struct BufferPlan {
  std::vector<uint64_t> offsets;  // by ValueId
  uint64_t bytes = 0;
};
BufferPlan plan_buffers(const Graph& graph, uint32_t max_rows, uint32_t max_selected);

}  // namespace foundry
