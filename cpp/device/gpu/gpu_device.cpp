#include "device/gpu/gpu_device.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "formats/dtype.h"
#include "launch.h"

namespace foundry {
namespace {

constexpr uint32_t kThreads = ElementwiseLaunch::kThreads;
constexpr uint32_t kMostSplits = AttentionDecodeLaunch::kMostSplits;
constexpr uint32_t kMostBound = 4096 / sizeof(SequenceParams);
constexpr uint64_t kMostPartials = uint64_t{64} << 20;  // bytes; more rows go one wave after the other

uint32_t groups(uint64_t n, uint32_t each) { return static_cast<uint32_t>((n + each - 1) / each); }

/// rot_dim, base, scale of a rope: turns of a position for each pair, as two floats (elementwise.metal).
using Frequencies = std::map<std::tuple<uint32_t, float, float>, std::vector<float>>;

class GpuWeight final : public Weight {
 public:
  std::unique_ptr<Buffer> buffer;
  mutable Frequencies frequencies;  // of ropes whose factors this is
  Span span() const { return {buffer.get(), 0}; }
};

Span span_of(const Weight* weight) { return static_cast<const GpuWeight*>(weight)->span(); }

class GpuDevice final : public Device {
 public:
  GpuDevice(std::unique_ptr<KernelQueue> queue, bool strict) : queue_(std::move(queue)), info_(queue_->info()) {
    info_.fuses = true;
    info_.gpu = true;
    if (!strict) return;
    info_.half_tiles = false;
    info_.isa += " strict";  // a saved history names its mode
  }

  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override { return queue_->allocate(bytes, kind); }
  bool unified() const override { return queue_->unified(); }
  std::byte* window(const Span& of, const Span& room) override { return queue_->window(of, room); }
  void upload(const Span& to, std::span<const std::byte> from) override { queue_->upload(to, from); }
  void download(const Span& from, std::span<std::byte> to) override { queue_->download(from, to); }
  void copy(const Span& from, const Span& to, uint64_t bytes) override { queue_->copy(from, to, bytes); }
  uint64_t prepared_bytes(const WeightView& view, WeightUse) const override {
    return queue_->copied_bytes(view.place(), view.bytes);
  }
  std::unique_ptr<Weight> prepare(const WeightView& view, WeightUse) override {
    auto weight = std::make_unique<GpuWeight>();
    weight->rows = view.rows, weight->cols = view.cols, weight->type = view.type, weight->mapped = view.data;
    weight->private_bytes = queue_->copied_bytes(view.place(), view.bytes);
    weight->buffer = queue_->wrap(view.data, view.bytes);
    return weight;
  }
  uint64_t scratch_bytes(const StepShape& shape) const override {
    return sequences_bytes(shape) + wave_rows(shape) * row_partials(shape.n_heads, shape.head_dim);
  }

  void begin(Span scratch, const StepShape& shape) override {
    scratch_ = scratch, shape_ = shape;
    partials_ = {scratch.buffer, scratch.offset + sequences_bytes(shape)};
    uploaded_.clear();
    queue_->begin();
  }

  void embed(const EmbedArgs& args) override {
    queue_->dispatch(Dispatch("embed", {args.p.n_rows}, kThreads)
                         .of(dtype_name(args.table->type))
                         .buffer(span_of(args.table))
                         .buffer(args.tokens)
                         .buffer(args.out)
                         .value(args.p));
  }

  void rms_norm(const RmsNormArgs& args) override {
    const bool wide = args.p.width >= RmsNormLaunch::kWideFrom;
    const uint32_t simdgroups = wide ? RmsNormLaunch::kWide : RmsNormLaunch::kNarrow;
    queue_->dispatch(Dispatch("rms_norm", {args.p.n_rows}, simdgroups * 32)
                         .of(wide ? "wide" : "narrow")
                         .buffer(args.in)
                         .buffer(span_of(args.weight))
                         .buffer(args.out)
                         .value(args.p));
  }

  void layer_norm(const LayerNormArgs& args) override {
    queue_->dispatch(Dispatch("layer_norm", {args.p.n_rows}, LayerNormLaunch::kThreads)
                         .buffer(args.in)
                         .buffer(span_of(args.weight))
                         .buffer(args.bias == nullptr ? args.in : span_of(args.bias))  // then never read
                         .buffer(args.out)
                         .value(args.p));
  }

  /// Few rows: norm and gate are part of the launch. Many: they are launches of their own, through the room.
  void linear(const LinearArgs& args) override {
    const LinearParams& first = args.outputs.front().p;
    const bool tiles = info_.half_tiles && first.in_features % LinearTilesLaunch::kNeighbours == 0 &&
                       first.n_rows >= LinearTilesLaunch::kFromRows;
    if (tiles && args.norm.weight != nullptr) rms_norm({args.norm.p, args.norm.weight, args.norm.in, args.in});
    bool beside = false;
    for (const LinearArgs::Output& output : args.outputs) {
      Dispatch launch = tiles ? tiles_launch(args, output) : rows_launch(args, output);
      if (beside) launch.beside();
      beside = true;
      queue_->dispatch(launch);
      if (!tiles && args.gate != LinearArgs::Gate::none) return;
    }
    if (args.gate != LinearArgs::Gate::none)
      gated(args.gate == LinearArgs::Gate::swiglu ? "swiglu" : "geglu",
            {first.n_rows, first.out_features, args.outputs[0].out, args.outputs[1].out, args.gated});
  }

  // Refused with the graph (engine/model.cpp).
  void route(const RouteArgs&) override { throw ConsistencyError("a GPU was given a route"); }
  void linear_routed(const LinearRoutedArgs&) override { throw ConsistencyError("a GPU was given a linear_routed"); }
  void sum_routed(const SumRoutedArgs&) override { throw ConsistencyError("a GPU was given a sum_routed"); }
  void swiglu_clamped(const ClampedGateArgs&) override { throw ConsistencyError("a GPU was given a swiglu_clamped"); }

  void rope(const RopeArgs& args) override {
    const std::vector<float>& turns = frequencies(args);
    queue_->dispatch(Dispatch("rope", {args.p.n_rows}, kThreads)
                         .buffer(args.in)
                         .buffer(args.out)
                         .buffer(args.positions)
                         .bytes(turns.data(), turns.size() * sizeof(float))
                         .value(args.p));
  }

  void kv_append(const KvAppendArgs& args) override {
    const DType types[] = {static_cast<DType>(args.kv.k_type), static_cast<DType>(args.kv.v_type)};
    for (uint32_t part = 0; part < 2; ++part) {
      const AppendParams p{args.layer, part, args.n_sequences};
      Dispatch launch("kv_append", {args.n_rows}, KvAppendLaunch::kThreads);
      launch.of(dtype_name(types[part])).buffer(part == 0 ? args.k : args.v);
      sequences(launch, args.sequences, args.n_sequences);
      if (part == 1) launch.beside();
      queue_->dispatch(launch.value(args.kv).value(p));
    }
  }

  void attention(const AttentionArgs& args) override {
    const uint32_t per_kv_head = args.p.n_heads / args.kv.n_kv_heads;
    const uint32_t lanes = decode_lanes(args.kv.head_dim), queries = decode_queries(per_kv_head);
    uint64_t end = 1;
    for (uint32_t s = 0; s < args.p.n_sequences; ++s)
      end = std::max(end, uint64_t{args.sequences[s].start} + args.sequences[s].n_rows);
    const uint32_t prefill = prefill_rows(args);
    uint32_t decodes = 0, prefills = 0, most_rows = 0;
    for (uint32_t s = 0; s < args.p.n_sequences; ++s) {
      const uint32_t n = args.sequences[s].n_rows;
      ++(n >= prefill ? prefills : decodes);
      most_rows = std::max(most_rows, n);
    }
    if (prefills != 0) {
      const SplitParams split{0, 0, 0, prefill};
      const uint32_t strips = groups(most_rows, AttentionPrefillLaunch::kRows) * per_kv_head;
      const Grid grid{groups(strips, AttentionPrefillLaunch::kSimdgroups), args.kv.n_kv_heads, args.p.n_sequences};
      Dispatch launch("attention_prefill", grid, AttentionPrefillLaunch::kThreads);
      launch.of(kv_format(args.kv, false)).of(std::to_string(args.kv.head_dim).c_str()).buffer(args.q);
      sequences(launch, args.sequences, args.p.n_sequences);
      queue_->dispatch(launch.buffer(args.out).value(args.kv).value(args.p).value(split));
    }
    if (decodes == 0) return;
    // As many as the longest history has segments, or kMostSplits: either way a query's own splits depend on its position alone.
    const uint32_t splits = std::min(groups(end, args.p.segment_tokens), kMostSplits);
    const uint32_t parts = groups(per_kv_head, queries);
    const uint32_t wave = static_cast<uint32_t>(wave_rows(shape_));
    for (uint32_t row = 0; row < args.p.n_rows; row += wave) {
      const uint32_t rows = std::min(wave, args.p.n_rows - row);
      const SplitParams split{row, splits, parts, prefill};
      Dispatch decode("attention_decode", {args.kv.n_kv_heads * parts, splits, rows}, AttentionDecodeLaunch::kThreads);
      decode.of(kv_format(args.kv, true))
          .of(std::to_string(lanes).c_str())
          .of(std::to_string(queries).c_str())
          .buffer(args.q);
      sequences(decode, args.sequences, args.p.n_sequences);
      // Beside prefill, which writes other rows; but not beside the merge of the wave before.
      if (prefills != 0 && row == 0) decode.beside();
      queue_->dispatch(decode.buffer(partials_).value(args.kv).value(args.p).value(split));
      Dispatch merge("attention_merge", {args.p.n_heads, rows}, AttentionMergeLaunch::kThreads);
      merge.buffer(partials_).buffer(args.out).value(args.kv).value(args.p).value(split);
      sequences(merge, args.sequences, args.p.n_sequences);
      queue_->dispatch(merge);
    }
  }

  void swiglu(const GatedArgs& args) override { gated("swiglu", args); }
  void geglu(const GatedArgs& args) override { gated("geglu", args); }

  void add(const AddArgs& args) override {
    const uint64_t n = uint64_t{args.n_rows} * args.width;
    queue_->dispatch(
        Dispatch("add", {groups(n, kThreads)}, kThreads).buffer(args.a).buffer(args.b).buffer(args.out).value(n));
  }

  void gelu(const GeluArgs& args) override {
    const uint64_t n = uint64_t{args.n_rows} * args.width;
    queue_->dispatch(Dispatch("gelu", {groups(n, kThreads)}, kThreads).buffer(args.in).buffer(args.out).value(n));
  }

  void scale(const ScaleArgs& args) override {
    queue_->dispatch(
        Dispatch("scale", {groups(args.p.n, kThreads)}, kThreads).buffer(args.in).buffer(args.out).value(args.p));
  }

  void resize_heads(const ResizeHeadsArgs& args) override {
    queue_->dispatch(Dispatch("resize_heads", {groups(args.p.n, kThreads)}, kThreads)
                         .buffer(args.in)
                         .buffer(args.out)
                         .value(args.p));
  }

  void select_rows(const SelectRowsArgs& args) override {
    queue_->dispatch(Dispatch("select_rows", {args.n_selected}, kThreads)
                         .buffer(args.rows)
                         .buffer(args.in)
                         .buffer(args.out)
                         .value(args.width));
  }

  void sample(const SampleArgs& args) override {
    queue_->dispatch(Dispatch("sample", {args.n_rows}, SampleLaunch::kThreads)
                         .buffer(args.logits)
                         .buffer(args.out)
                         .bytes(args.params, args.n_rows * sizeof(SampleParams))
                         .value(args.vocab_size));
  }

  uint64_t submit() override { return queue_->submit(); }
  void wait(uint64_t step) override { queue_->wait(step); }

 private:
  /// From so many rows on a sequence has the kernel with matrix tiles, where there is one.
  uint32_t prefill_rows(const AttentionArgs& args) const {
#define FOUNDRY_IS_DIM(dim, ...) args.kv.head_dim == dim ||
    const bool there = FOUNDRY_PREFILL_DIMS(FOUNDRY_IS_DIM) false;
#undef FOUNDRY_IS_DIM
    return info_.half_tiles && there ? uint32_t{AttentionPrefillLaunch::kRows} : UINT32_MAX;
  }
  /// Lanes that have a head between them: as few as hold it.
  static uint32_t decode_lanes(uint32_t head_dim) {
    uint32_t found = 0;
#define FOUNDRY_HOLDS(lanes, ...) \
  if (found == 0 && head_dim <= lanes * AttentionDecodeLaunch::kDims) found = lanes;
    FOUNDRY_DECODE_LANES(FOUNDRY_HOLDS)
#undef FOUNDRY_HOLDS
    return found;
  }
  /// Query heads of a threadgroup: as few as a KV head has, or the most there are.
  static uint32_t decode_queries(uint32_t per_kv_head) {
    uint32_t found = 0;
#define FOUNDRY_TAKES(queries, ...) \
  if (found < per_kv_head) found = queries;
    FOUNDRY_DECODE_QUERIES(FOUNDRY_TAKES)
#undef FOUNDRY_TAKES
    return found;
  }
  /// Which instance: of one type of its own, or of any two.
  static const char* kv_format(const KvParams& kv, bool decode) {
#define FOUNDRY_IS_FORMAT(name, ...) \
  if (kv.k_type == static_cast<u32>(DType::name)) return #name;
    if (kv.k_type != kv.v_type) return "any";
    if (decode) {
      FOUNDRY_DECODE_FORMATS(FOUNDRY_IS_FORMAT)
    } else {
      FOUNDRY_PREFILL_FORMATS(FOUNDRY_IS_FORMAT)
    }
#undef FOUNDRY_IS_FORMAT
    return "any";
  }
  static uint64_t row_partials(uint64_t n_heads, uint64_t head_dim) {
    return n_heads * kMostSplits * (head_dim + 2) * sizeof(float);
  }
  static uint64_t wave_rows(const StepShape& shape) {
    const uint64_t row = row_partials(shape.n_heads, shape.head_dim);
    return row == 0 ? 1 : std::clamp<uint64_t>(kMostPartials / row, 1, std::max<uint32_t>(shape.max_rows, 1));
  }

  static Dispatch tiles_launch(const LinearArgs& args, const LinearArgs::Output& output) {
    const Grid grid{groups(output.p.out_features, LinearTilesLaunch::kSide),
                    groups(output.p.n_rows, LinearTilesLaunch::kSide)};
    Dispatch launch("linear_tiles", grid, LinearTilesLaunch::kThreads);
    launch.of(dtype_name(output.weight->type));
    bind(launch, args, output, args.in);
    return launch;
  }

  static Dispatch rows_launch(const LinearArgs& args, const LinearArgs::Output& output) {
    const bool norm = args.norm.weight != nullptr, gate = args.gate != LinearArgs::Gate::none;
    const uint32_t outputs = LinearLaunch::kSimdgroups * (gate ? 1u : uint32_t{LinearLaunch::kOutputs});
    const Grid grid{groups(output.p.out_features, outputs), groups(output.p.n_rows, LinearLaunch::kRows)};
    Dispatch launch("linear", grid, LinearLaunch::kThreads);
    launch.of(dtype_name(output.weight->type));
    if (output.p.in_features % LinearLaunch::kNeighbours != 0) launch.of("single");
    bind(launch, args, output, norm ? args.norm.in : args.in);
    launch.buffer(norm ? span_of(args.norm.weight) : args.in)
        .buffer(gate ? span_of(args.outputs[1].weight) : span_of(output.weight))
        .value(args.norm.p.eps);
    launch.constant(2, norm).constant(3, gate).constant(4, args.gate == LinearArgs::Gate::geglu);
    return launch;
  }

  /// Both kernels' first six; what is not there is never read.
  static void bind(Dispatch& launch, const LinearArgs& args, const LinearArgs::Output& output, Span in) {
    const bool bias = output.bias != nullptr, residual = args.residual.buffer != nullptr;
    launch.buffer(in)
        .buffer(span_of(output.weight))
        .buffer(bias ? span_of(output.bias) : in)
        .buffer(residual ? args.residual : in)
        .buffer(args.gate != LinearArgs::Gate::none && launch.base() == "linear" ? args.gated : output.out)
        .value(output.p);
    launch.constant(0, bias).constant(1, residual);
  }

  void gated(const char* kernel, const GatedArgs& args) {
    const uint64_t n = uint64_t{args.n_rows} * args.width;
    queue_->dispatch(
        Dispatch(kernel, {groups(n, kThreads)}, kThreads).buffer(args.gate).buffer(args.up).buffer(args.out).value(n));
  }

  /// Few are bound as they are (Metal takes 4 KiB so); many are put into scratch, once a step for each group.
  static uint64_t sequences_bytes(const StepShape& shape) {
    if (shape.max_sequences <= kMostBound) return 0;
    return (shape.n_groups * uint64_t{shape.max_sequences} * sizeof(SequenceParams) + 255) / 256 * 256;
  }
  void sequences(Dispatch& launch, const SequenceParams* of, uint32_t n) {
    if (n <= kMostBound) {
      launch.bytes(of, n * sizeof(SequenceParams));
      return;
    }
    auto found = std::find(uploaded_.begin(), uploaded_.end(), of);
    const auto index = static_cast<uint64_t>(found - uploaded_.begin());
    const Span to{scratch_.buffer, scratch_.offset + index * shape_.max_sequences * sizeof(SequenceParams)};
    if (found == uploaded_.end()) {
      if (index == shape_.n_groups || n > shape_.max_sequences)
        throw ConsistencyError("a step of more sequences than its scratch holds");
      uploaded_.push_back(of);
      queue_->upload(to, std::as_bytes(std::span(of, n)));
    }
    launch.buffer(to);
  }

  /// Worked out once for each kind of rope; [rot_dim], at most 1 KiB.
  const std::vector<float>& frequencies(const RopeArgs& args) {
    Frequencies& known =
        args.factors == nullptr ? frequencies_ : static_cast<const GpuWeight*>(args.factors)->frequencies;
    std::vector<float>& to = known[{args.p.rot_dim, args.p.base, args.p.scale}];
    if (to.empty()) {
      const uint32_t n = args.p.rot_dim / 2;
      to.resize(uint64_t{2} * n);
      const auto* factors = args.factors == nullptr ? nullptr : reinterpret_cast<const float*>(args.factors->mapped);
      for (uint32_t i = 0; i < n; ++i) {
        const double turns = static_cast<double>(args.p.scale) *
                             std::pow(static_cast<double>(args.p.base), -2.0 * i / args.p.rot_dim) /
                             (factors == nullptr ? 1.0 : factors[i]) / (2 * std::acos(-1.0));
        to[2 * i] = static_cast<float>(turns);
        to[2 * i + 1] = static_cast<float>(turns - static_cast<double>(to[2 * i]));
      }
    }
    return to;
  }

  std::unique_ptr<KernelQueue> queue_;
  DeviceInfo info_;
  Frequencies frequencies_;
  std::vector<const SequenceParams*> uploaded_;  // in this step, by place
  Span scratch_, partials_;
  StepShape shape_;
};

}  // namespace

std::unique_ptr<Device> make_gpu_device(std::unique_ptr<KernelQueue> queue, bool strict) {
  return std::make_unique<GpuDevice>(std::move(queue), strict);
}

}  // namespace foundry
