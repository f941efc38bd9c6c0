// The one interface of a device: its memory (memory.h), prepared weights, encode a step, submit, wait.
// Adding a device means adding a folder beside this file and a line in registry.cpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device/memory.h"
#include "formats/dtype.h"
#include "formats/weight_view.h"
#include "params.h"

namespace foundry {

/// What an op does with the weight: `table` is looked up or read whole as f32 (embed, norms, biases, rope factors),
/// `linear` is multiplied.
enum class WeightUse : uint32_t { table, linear };

/// A weight as the device keeps it: either the mapped bytes themselves or a private, re-laid copy.
class Weight {
 public:
  virtual ~Weight() = default;
  uint64_t rows = 0;
  uint64_t cols = 0;
  DType type = DType::f32;
  const std::byte* mapped = nullptr;  // the file's bytes (always kept: reference and table lookups read them)
  uint64_t private_bytes = 0;         // bytes of the copy; 0 when the device reads the mapped bytes
};

struct DeviceInfo {
  std::string name;               // "reference", "cpu"
  std::string isa;                // "scalar", "x86-64-v2", "avx2", "avx512", "amx", "neon"
  uint32_t max_tile_tokens = 16;  // K is tiled min(page_tokens, this) tokens side by side
  uint32_t threads = 1;
  uint32_t max_head_dim = 256;      // of attention
  bool half_tiles = false;          // many rows have matrix tiles, which round otherwise: bits depend on the chunks
  bool fuses_linears = true;        // linears of one input, and an add behind a linear
  bool fuses = false;               // an rms_norm before a linear, and the gate behind it
  uint32_t steps_ahead = 0;         // that may be under way behind one: worth it where a device runs beside the host
  uint64_t memory_bytes = 0;        // that the device should hold at most; 0: not known
  std::string system = {};          // a build of the system, where its drivers decide about bits; or empty
  uint32_t tile_rows = UINT32_MAX;  // how many rows of a linear layer have such
  bool makes_rows = false;          // what it prepares a copy of may be rows that are made (WeightView::made)
  bool gpu = false;                 // it reads what formats.def gives to `all`, not what it gives to `host`
};

/// The shape that bounds a step: what workspace is planned from.
struct StepShape {
  uint32_t max_rows = 0;  // rows of a chunk
  uint32_t max_in_features = 0;
  uint32_t max_sequences = 0;
  uint32_t n_heads = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;  // the largest, of attention and rope
  uint32_t n_groups = 1;  // of layers: each has sequences of its own
  // Of routed linears, the most of each; 0: there are none.
  uint32_t n_experts = 0;
  uint32_t n_used = 0;  // by a row
  uint32_t max_routed_in = 0;
};

// Arguments of the ops. Activations are f32, row-major, contiguous: [n_rows, width].
struct EmbedArgs {
  EmbedParams p;
  const Weight* table;  // [vocab, width]
  Span tokens;          // i32 [n_rows]
  Span out;
};
struct RmsNormArgs {
  RmsNormParams p;
  const Weight* weight;  // f32 [1, width]
  Span in, out;
};
struct LayerNormArgs {
  LayerNormParams p;
  const Weight* weight;  // f32 [1, width]
  const Weight* bias;    // f32 [1, width], or null
  Span in, out;
};
/// y_i = x W_i^T (+ bias_i) (+ residual, only where there is one output). Siblings of one input are one call.
struct LinearArgs {
  struct Output {
    LinearParams p;
    const Weight* weight;          // [out_features, in_features]
    const Weight* bias = nullptr;  // f32 [1, out_features]
    Span out;                      // [n_rows, out_features]
  };
  Span in;        // [n_rows, in_features]
  Span residual;  // buffer null: none; may be the same place as out
  std::vector<Output> outputs;
  // Where the device `fuses`: what comes before and behind in the same call. What lies between is room, written or not.
  struct Norm {
    const Weight* weight = nullptr;  // null: none
    RmsNormParams p{};
    Span in;  // what is normed; `in` of the linear is then room
  } norm;
  enum class Gate : uint32_t { none, swiglu, geglu } gate = Gate::none;
  Span gated;  // [n_rows, out_features]: of outputs[0], the gate, and outputs[1], which are then room
};
/// Which experts each row goes through, and what each counts (RouteOp). NaN ranks behind all numbers; a row with a
/// score that is not finite has weights of NaN, and numbers of experts that there are.
struct RouteArgs {
  RouteParams p;
  const Weight* bias;  // f32 [1, n_experts], or null
  Span scores;         // [n_rows, n_experts]
  Span chosen;         // i32 [n_rows, n_used]
  Span weights;        // [n_rows, n_used]
};
/// out[r, i] = in[r (, i)] W_e^T (+ bias_e), e = chosen[r, i]. Experts that no row chose are not read.
struct LinearRoutedArgs {
  LinearRoutedParams p;
  const Weight* weight;  // [n_experts * out_features, in_features]
  const Weight* bias;    // f32 [n_experts, out_features], or null
  Span in;               // [n_rows, in_parts, in_features]
  Span chosen;           // i32 [n_rows, n_used]
  Span out;              // [n_rows, n_used, out_features]
};
/// out[r] = sum over i, ascending, of weights[r, i] * in[r, i]
struct SumRoutedArgs {
  SumRoutedParams p;
  Span in;       // [n_rows, n_used, width]
  Span weights;  // [n_rows, n_used]
  Span out;      // [n_rows, width]
};
/// See ShortConvParams. A row's result is one sum in one order, however its sequence's rows are cut into runs.
struct ShortConvArgs {
  ShortConvParams p;
  const StateRun* runs;
  u32 n_runs;
  const Weight* taps;  // f32 [channels, taps]
  const Weight* bias;  // f32 [1, channels], or null
  Span in;             // [n_rows, channels], or gated [n_rows, 3, channels]
  Span out;            // [n_rows, channels]
};
/// See GatedDeltaParams. A row's result and state are the same however its sequence's rows are cut into runs.
struct GatedDeltaArgs {
  GatedDeltaParams p;
  const StateRun* runs;
  u32 n_runs;
  const Weight* decay;  // f32 [1, v_heads]
  const Weight* bias;   // f32 [1, v_heads]
  const Weight* norm;   // f32 [1, head_v]
  Span mixed;           // [n_rows, 2 * k_heads * head_k + v_heads * head_v]
  Span alpha, beta;     // [n_rows, v_heads]
  Span z, out;          // [n_rows, v_heads * head_v]
};
/// Rotates `in` [n_rows, n_heads * head_dim] into `out` (may be the same place).
struct RopeArgs {
  RopeParams p;
  const Weight* factors = nullptr;  // f32 [1, rot_dim/2]: frequency divisors (Llama 3), or none
  Span positions;                   // i32 [n_rows]
  Span in, out;
};
/// Writes K and V of each row at the row's position into the pages of its sequence, converted to the K/V types.
struct KvAppendArgs {
  KvParams kv;
  uint32_t layer;  // inside the group
  uint32_t n_rows;
  uint32_t n_sequences;
  const SequenceParams* sequences;
  Span k, v;  // [n_rows, n_kv_heads * head_dim]
  // Where the device `fuses`: the ropes of Q and of K before it in the same call, by the same turns; k is what K's
  // writes, and is room.
  const RopeArgs* q_rope = nullptr;
  const RopeArgs* k_rope = nullptr;
};
/// Causal attention over pages: row r sees positions 0 .. its own. Segments of p.segment_tokens from position 0, each
/// from a fresh (max, sum, out), merged in ascending order; tokens outside are selected away, never multiplied by zero.
struct AttentionArgs {
  AttentionParams p;
  KvParams kv;
  const SequenceParams* sequences;
  Span q, out;                    // [n_rows, n_heads * head_dim]
  const Weight* sinks = nullptr;  // f32 [1, n_heads]: one more score of each head, behind all, without a value; or null
};
struct GatedArgs {  // swiglu: out = silu(gate) * up; geglu: out = gelu(gate) * up, gelu by tanh
  uint32_t n_rows;
  uint32_t width;
  Span gate, up, out;
};
struct
    ClampedGateArgs {  // out = g / (1 + e^(-alpha g)) * (u + 1), g = min(gate, limit), u = max(-limit, min(up, limit))
  uint32_t n_rows;
  uint32_t width;
  float alpha, limit;
  Span gate, up, out;
};
struct SigmoidGateArgs {
  SigmoidGateParams p;
  Span in;    // [n_rows, n_heads, width]
  Span gate;  // [n_rows, n_heads, of_head]
  Span out;
};
struct GeluArgs {  // out = gelu(in), by tanh
  uint32_t n_rows;
  uint32_t width;
  Span in, out;
};
struct ScaleArgs {  // out may be the same place as in
  ScaleParams p;
  Span in, out;
};
struct ResizeHeadsArgs {
  ResizeHeadsParams p;
  Span in, out;
};
struct AddArgs {
  uint32_t n_rows;
  uint32_t width;
  Span a, b, out;
};
struct SelectRowsArgs {  // out[i] = in[rows[i]]
  uint32_t n_selected;
  uint32_t width;
  Span rows;  // i32 [n_selected]
  Span in, out;
};

struct SampleArgs {  // out[i] = a token drawn from logits[i] by params[i]
  uint32_t n_rows;
  uint32_t vocab_size;
  const SampleParams* params;  // [n_rows]
  Span logits;                 // f32 [n_rows, vocab_size]
  Span out;                    // i32 [n_rows]
};

class Device : public DeviceMemory {
 public:
  virtual const DeviceInfo& info() const = 0;

  /// Bytes that prepare() will hold privately: the memory plan, made before anything is allocated, and where the view
  /// has no bytes.
  virtual uint64_t prepared_bytes(const WeightView& view, WeightUse use) const = 0;
  virtual std::unique_ptr<Weight> prepare(const WeightView& view, WeightUse use) = 0;
  /// Private scratch for steps up to this shape; the engine allocates it, as `device` memory, and hands it to begin().
  virtual uint64_t scratch_bytes(const StepShape& shape) const = 0;

  // One step: begin, ops in order, submit, wait. Host devices may run each op as it is encoded. Encoding never fails
  // for want of memory. A device may run steps behind the encoder: they run in order.
  virtual void begin(Span scratch, const StepShape& shape) = 0;
  virtual void embed(const EmbedArgs& args) = 0;
  virtual void rms_norm(const RmsNormArgs& args) = 0;
  virtual void layer_norm(const LayerNormArgs& args) = 0;
  virtual void linear(const LinearArgs& args) = 0;
  virtual void route(const RouteArgs& args) = 0;
  virtual void linear_routed(const LinearRoutedArgs& args) = 0;
  virtual void sum_routed(const SumRoutedArgs& args) = 0;
  virtual void short_conv(const ShortConvArgs& args) = 0;
  virtual void gated_delta(const GatedDeltaArgs& args) = 0;
  virtual void rope(const RopeArgs& args) = 0;
  virtual void kv_append(const KvAppendArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void swiglu(const GatedArgs& args) = 0;
  virtual void geglu(const GatedArgs& args) = 0;
  virtual void swiglu_clamped(const ClampedGateArgs& args) = 0;
  virtual void sigmoid_gate(const SigmoidGateArgs& args) = 0;
  virtual void gelu(const GeluArgs& args) = 0;
  virtual void add(const AddArgs& args) = 0;
  virtual void scale(const ScaleArgs& args) = 0;
  virtual void resize_heads(const ResizeHeadsArgs& args) = 0;
  virtual void select_rows(const SelectRowsArgs& args) = 0;
  virtual void sample(const SampleArgs& args) = 0;
  /// The step's number; numbers ascend.
  virtual uint64_t submit() = 0;
  /// What was encoded and not submitted touches nothing any more: it has not begun, and never will, or has ended.
  virtual void drop() noexcept {}
  /// Until this step, and with it those before, has completed. What a GPU reports of one that failed: MemoryLimitError
  /// where memory was short, else ConsistencyError; then the device is idle, and takes new steps.
  virtual void wait(uint64_t step) = 0;
};

struct DeviceOptions {
  std::string name = "auto";     // "auto", "cpu", "cpu:avx2", "reference", ...
  uint32_t threads = 0;          // 0: the device chooses
  std::string cache_dir{};       // where compiled kernels are kept; empty: nowhere
  std::string kernel_library{};  // a file of kernels that were compiled with the build (Metal), where there is one
  std::string compiler{};        // NVIDIA's NVRTC, a path (CUDA); empty: by the loader's name
};

/// A GPU with memory of its own.
struct GpuFound {
  std::string name;  // of the device, "cuda:1"
  std::string model;
  uint64_t memory_bytes = 0;
};

/// Throws ValueError naming the devices there are.
std::unique_ptr<Device> make_device(const DeviceOptions& options);
/// Names that make_device takes on this machine: "reference", "cpu", and "cpu:<isa>" for each ISA the processor has.
std::vector<std::string> device_names();
/// Those of them that are GPUs with memory of their own.
std::vector<GpuFound> gpus();
/// What "auto" may be, the best first: GPUs that have been seen right and have all that they need, then the processor.
/// make_device takes the first; who knows the model takes the first that it fits.
std::vector<std::string> auto_devices(const DeviceOptions& options);
/// One more device, from a build's or a test's own code: `name` is then among device_names().
using DeviceMaker = std::unique_ptr<Device> (*)(const DeviceOptions& options);
void register_device(const std::string& name, DeviceMaker make);

}  // namespace foundry
