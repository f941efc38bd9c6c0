// The ops of a graph, a struct for each kind: its name, and the attributes that it reads. What a layer's K and V look
// like (KV heads, head_dim, window) is a LayerGroup's to say, so kv_append and attention name the group and repeat
// nothing of it. `fields` lists attributes with the keys under which they are written; a kind without `fields` is never
// written.
//
// Inputs, outputs and weights by kind:
//   embed        ()            -> (x)     weights (table); times `scale`
//   rms_norm     (x)           -> (y)     weights (scale); over as many values as the scale has: a row, or a head of it
//   linear       (x)           -> (y)     weights (w, bias or kNone)
//   rope         (x)           -> (y)     weights (factors or kNone); positions times `scale`
//   kv_append    (k, v)        -> ()
//   attention    (q)           -> (y)
//   swiglu       (gate, up)    -> (y)     geglu likewise
//   add          (a, b)        -> (y)
//   select_rows  (x)           -> (y)
//   fused_linear (x [, residual]) -> (y...) weights (w..., biases or kNone..., norm's scale if it has one)
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace foundry {

using ValueId = int32_t;
using WeightId = int32_t;
inline constexpr int32_t kNone = -1;

struct EmbedOp {
  static constexpr const char* kName = "embed";
  float scale = 1;
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("scale", op.scale);
  }
};

struct RmsNormOp {
  static constexpr const char* kName = "rms_norm";
  float eps = 0;
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("eps", op.eps);
  }
};

struct LinearOp {
  static constexpr const char* kName = "linear";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

struct RopeOp {
  static constexpr const char* kName = "rope";
  uint32_t n_heads = 0;
  uint32_t head_dim = 0;
  uint32_t rot_dim = 0;
  uint32_t style = 0;  // 0: turns pairs (2i, 2i + 1); 1: pairs (i, i + rot_dim / 2)
  float base = 0;
  float scale = 1;
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("heads", op.n_heads), visit("head_dim", op.head_dim), visit("rot_dim", op.rot_dim);
    visit("style", op.style), visit("base", op.base), visit("scale", op.scale);
  }
};

struct KvAppendOp {
  static constexpr const char* kName = "kv_append";
  uint32_t group = 0;
  uint32_t layer = 0;  // inside the group
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("group", op.group), visit("layer", op.layer);
  }
};

struct AttentionOp {
  static constexpr const char* kName = "attention";
  uint32_t n_heads = 0;  // of Q
  float scale = 0;       // of the products of Q and K
  uint32_t group = 0;
  uint32_t layer = 0;  // inside the group
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("heads", op.n_heads), visit("scale", op.scale), visit("group", op.group), visit("layer", op.layer);
  }
};

struct SwigluOp {
  static constexpr const char* kName = "swiglu";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

struct GegluOp {
  static constexpr const char* kName = "geglu";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

struct AddOp {
  static constexpr const char* kName = "add";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

struct SelectRowsOp {
  static constexpr const char* kName = "select_rows";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

/// What fuse() makes of linears and their neighbours, for one call of a device: a norm before them, siblings that read one
/// value, and behind them a gate (of two without biases) or a residual (of one). Only a fused graph has it.
/// `rooms` of the op are the values that are not seen outside: what is normed, then what the gate reads.
struct FusedLinearOp {
  static constexpr const char* kName = "fused_linear";
  enum class Gate : uint32_t { none, swiglu, geglu };
  uint32_t n_linears = 1;
  std::optional<RmsNormOp> norm;
  bool residual = false;
  Gate gate = Gate::none;
};

struct Op {
  using Kind = std::variant<EmbedOp, RmsNormOp, LinearOp, RopeOp, KvAppendOp, AttentionOp, SwigluOp, GegluOp, AddOp,
                            SelectRowsOp, FusedLinearOp>;
  Kind kind;
  std::string name;  // "layer 3 attention", for errors
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  std::vector<WeightId> weights;
  std::vector<ValueId> rooms;  // of fused ops: written or not, and read by nobody else

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(kind);
  }
  template <class T>
  const T* as() const {
    return std::get_if<T>(&kind);
  }
  template <class T>
  T* as() {
    return std::get_if<T>(&kind);
  }
  const char* kind_name() const {
    return std::visit([](const auto& one) { return one.kName; }, kind);
  }
};

}  // namespace foundry
