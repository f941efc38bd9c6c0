// The ops of a graph, a struct for each kind: its name, and the attributes that it reads. What a layer's K and V look
// like (KV heads, head_dim, window) is a LayerGroup's to say, so kv_append and attention name the group and repeat
// nothing of it. `fields` lists attributes with the keys under which they are written; one that comes with a default is
// written only where it differs. A kind without `fields` is never written.
//
// Inputs, outputs and weights by kind:
//   embed        ()            -> (x)     weights (table); times `scale`
//   rms_norm     (x)           -> (y)     weights (scale); over as many values as the scale has: a row, or a head of it
//   linear       (x)           -> (y)     weights (w, bias or kNone)
//   layer_norm   (x)           -> (y)     weights (scale, bias or kNone); over whole rows
//   rope         (x)           -> (y)     weights (factors or kNone); positions times `scale`, cosines and sines times
//                                         `magnitude`
//   kv_append    (k, v)        -> ()
//   attention    (q)           -> (y)     weights (sinks: of each head a score that takes weight and gives no value), or none
//   swiglu       (gate, up)    -> (y)     geglu likewise
//   swiglu_clamped (gate, up)  -> (y)     g / (1 + e^(-alpha g)) * (u + 1), of g = min(gate, limit) and u = up within
//                                         -limit .. limit
//   gelu         (x)           -> (y)     by tanh
//   add          (a, b)        -> (y)
//   scale        (x)           -> (y)     x times `scale`, then bent below `cap`, where there is one
//   resize_heads (x)           -> (y)     heads cut to, or filled up with zeros to, `to` values
//   select_rows  (x)           -> (y)
//   route        (scores)      -> (chosen, weights) weights (bias of the choice or kNone); of each row the n_used best
//                                         experts, the best first, of equals the one with the lower number; and what
//                                         each one's result counts
//   linear_routed (x, chosen)  -> (y)     weights (w of all experts, biases of all or kNone); the results of a row's
//                                         experts side by side. x has a row for all of them, or one for each, side by side
//   sum_routed   (y, weights)  -> (x)     what stands side by side, times its weight, summed in that order
//   short_conv   (x)           -> (y)     weights (taps [channels, taps], bias or kNone); a causal convolution of each
//                                         channel, whose last values are a layer's state (params.h: ShortConvParams)
//   gated_delta  (mixed, alpha, beta, z) -> (y) weights (decay, its bias, norm); the gated delta rule, whose matrices are
//                                         a layer's state (params.h: GatedDeltaParams)
//   sigmoid_gate (x, gate)     -> (y)     x / (1 + e^-gate), by heads: of each the gate has one for all of its values,
//                                         one for each, or, behind as many other values, one for each
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

struct LayerNormOp {
  static constexpr const char* kName = "layer_norm";
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
  float magnitude = 1;
  float temperature = 0;            // params.h
  uint32_t temperature_length = 0;  // 0: none
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("heads", op.n_heads), visit("head_dim", op.head_dim), visit("rot_dim", op.rot_dim);
    visit("style", op.style), visit("base", op.base), visit("scale", op.scale);
    visit("magnitude", op.magnitude, 1.0f), visit("temperature", op.temperature, 0.0f);
    visit("temperature_length", op.temperature_length, 0u);
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
  float cap = 0;       // of the scaled products, which become cap * tanh(product / cap); 0: they stay
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("heads", op.n_heads), visit("scale", op.scale), visit("group", op.group), visit("layer", op.layer);
    visit("cap", op.cap, 0.0f);
  }
};

struct SwigluOp {
  static constexpr const char* kName = "swiglu";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

struct SwigluClampedOp {
  static constexpr const char* kName = "swiglu_clamped";
  float alpha = 0;
  float limit = 0;
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("alpha", op.alpha), visit("limit", op.limit);
  }
};

struct GegluOp {
  static constexpr const char* kName = "geglu";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

struct GeluOp {
  static constexpr const char* kName = "gelu";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

struct ScaleOp {
  static constexpr const char* kName = "scale";
  float scale = 1;
  float cap = 0;  // y becomes cap * tanh(y / cap); 0: it stays
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("scale", op.scale), visit("cap", op.cap);
  }
};

struct ResizeHeadsOp {
  static constexpr const char* kName = "resize_heads";
  uint32_t n_heads = 0;
  uint32_t from = 0;
  uint32_t to = 0;
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("heads", op.n_heads), visit("from", op.from), visit("to", op.to);
  }
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

/// Where a row goes. Scores of a choice are the scores themselves, or, with a bias or groups, the gate's results and
/// the bias. A group's score is the sum of its two best. Weights are the gate's results, without the bias.
struct RouteOp {
  static constexpr const char* kName = "route";
  uint32_t n_used = 0;
  uint32_t gate = 0;       // params.h: RouteGate
  uint32_t normalise = 0;  // 1: a row's weights are divided by their sum
  float scale = 1;         // what they are multiplied by then
  uint32_t n_groups = 1;   // neighbours, as many experts each: a row goes to the n_groups_used best alone
  uint32_t n_groups_used = 1;
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("used", op.n_used), visit("gate", op.gate), visit("normalise", op.normalise);
    visit("scale", op.scale, 1.0f), visit("groups", op.n_groups, 1u), visit("groups_used", op.n_groups_used, 1u);
  }
};

struct LinearRoutedOp {
  static constexpr const char* kName = "linear_routed";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

struct SumRoutedOp {
  static constexpr const char* kName = "sum_routed";
  template <class Self, class Visit>
  static void fields(Self&, Visit) {}
};

struct ShortConvOp {
  static constexpr const char* kName = "short_conv";
  uint32_t layer = 0;  // of the recurrent group
  uint32_t gated = 0;
  uint32_t part = 0;  // of the layer's state
  uint32_t silu = 0;  // 1: of what comes out
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("layer", op.layer), visit("gated", op.gated), visit("part", op.part, 0u), visit("silu", op.silu, 0u);
  }
};

struct GatedDeltaOp {
  static constexpr const char* kName = "gated_delta";
  uint32_t layer = 0;  // of the recurrent group
  uint32_t part = 0;   // of the layer's state
  uint32_t k_heads = 0;
  uint32_t v_heads = 0;
  uint32_t head_k = 0;
  uint32_t head_v = 0;
  float eps = 0;     // of the norm of what comes out
  float qk_eps = 0;  // of the norms of q and k
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("layer", op.layer), visit("part", op.part), visit("k_heads", op.k_heads), visit("v_heads", op.v_heads);
    visit("head_k", op.head_k), visit("head_v", op.head_v), visit("eps", op.eps), visit("qk_eps", op.qk_eps);
  }
};

struct SigmoidGateOp {
  static constexpr const char* kName = "sigmoid_gate";
  uint32_t n_heads = 0;
  template <class Self, class Visit>
  static void fields(Self& op, Visit visit) {
    visit("n_heads", op.n_heads);
  }
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

/// What fuse() makes of the ropes of Q and of K, by the same turns, and the kv_append behind them. Inputs: q, k, v; output:
/// the turned q. Only a fused graph has it; its room is the turned k.
struct FusedAppendOp {
  static constexpr const char* kName = "fused_append";
  RopeOp q, k;
  KvAppendOp append;
};

struct Op {
  using Kind =
      std::variant<EmbedOp, RmsNormOp, LinearOp, RopeOp, KvAppendOp, AttentionOp, SwigluOp, GegluOp, AddOp,
                   SelectRowsOp, LayerNormOp, GeluOp, ScaleOp, ResizeHeadsOp, RouteOp, LinearRoutedOp, SwigluClampedOp,
                   SumRoutedOp, ShortConvOp, GatedDeltaOp, SigmoidGateOp, FusedLinearOp, FusedAppendOp>;
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
