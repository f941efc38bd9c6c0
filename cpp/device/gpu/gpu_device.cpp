#include "device/gpu/gpu_device.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/gpu/arrange.h"
#include "device/gpu/attention_shape.h"
#include "device/gpu/gpu_weight.h"
#include "device/gpu/launch_sizes.h"
#include "device/gpu/linear_launches.h"
#include "device/gpu/recurrent_launches.h"
#include "device/gpu/routed_launches.h"
#include "formats/dtype.h"
#include "launch.h"

namespace foundry {
namespace {

constexpr uint32_t kThreads = ElementwiseLaunch::kThreads;
constexpr uint32_t kMostBytes = 4096;  // that Metal binds as they are
constexpr uint32_t kMostBound = kMostBytes / sizeof(SequenceParams), kMostDrawn = kMostBytes / sizeof(SampleParams);
constexpr double kSamplePasses = 8 * 8;  // over the vocabulary, by one threadgroup of the eight that could run

class GpuDevice final : public Device {
 public:
  GpuDevice(std::unique_ptr<KernelQueue> queue, bool strict) : queue_(std::move(queue)), info_(queue_->info()) {
    info_.fuses = true;
    info_.gpu = true;
    if (!strict && info_.half_tiles) info_.tile_rows = tile_rows(queue_->narrow_tiles());
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
  std::unique_ptr<Weight> prepare(const WeightView& view, WeightUse use) override {
    auto weight = std::make_unique<GpuWeight>();
    weight->rows = view.rows, weight->cols = view.cols, weight->type = view.type, weight->mapped = view.data;
    weight->private_bytes = queue_->copied_bytes(view.place(), view.bytes);
    weight->arranged = use == WeightUse::linear && view.matrices == 1 && queue_->narrow_tiles() &&
                       can_arrange(view.type, view.rows, view.cols);
    weight->buffer = weight->arranged ? arranged(view) : queue_->wrap(view.data, view.bytes);
    return weight;
  }
  uint64_t scratch_bytes(const StepShape& shape) const override {
    const uint64_t partials = wave_rows(shape) * row_partials(shape.n_heads, shape.head_dim);
    const uint64_t width = std::max(shape.max_in_features, shape.max_routed_in);  // one expert alone is a linear
    const uint64_t split = wide_tiles() ? SplitRows::bytes(shape.max_rows, width) : 0;
    return sequences_bytes(shape) + std::max(partials, split);
  }

  void begin(Span scratch, const StepShape& shape) override {
    scratch_ = scratch, shape_ = shape;
    room_ = {scratch.buffer, scratch.offset + sequences_bytes(shape)};
    uploaded_.clear();
    queue_->begin();
  }

  void embed(const EmbedArgs& args) override {
    queue_->dispatch(Dispatch("embed", {args.p.n_rows}, kThreads)
                         .of(dtype_name(args.table->type))
                         .buffer(span_of(args.table))
                         .buffer(args.tokens)
                         .buffer(args.out)
                         .value(args.p)
                         .costs(moved(args.p.n_rows, args.p.width, 2)));
  }

  void rms_norm(const RmsNormArgs& args) override {
    const bool wide = args.p.width >= RmsNormLaunch::kWideFrom;
    const uint32_t simdgroups = wide ? RmsNormLaunch::kWide : RmsNormLaunch::kNarrow;
    queue_->dispatch(Dispatch("rms_norm", {args.p.n_rows}, simdgroups * 32)
                         .of(wide ? "wide" : "narrow")
                         .buffer(args.in)
                         .buffer(span_of(args.weight))
                         .buffer(args.out)
                         .value(args.p)
                         .costs(moved(args.p.n_rows, args.p.width, 4)));
  }

  void layer_norm(const LayerNormArgs& args) override {
    queue_->dispatch(Dispatch("layer_norm", {args.p.n_rows}, LayerNormLaunch::kThreads)
                         .buffer(args.in)
                         .buffer(span_of(args.weight))
                         .buffer(args.bias == nullptr ? args.in : span_of(args.bias))  // then never read
                         .buffer(args.out)
                         .value(args.p)
                         .costs(moved(args.p.n_rows, args.p.width, 5)));
  }

  /// Few rows: norm and gate are part of the launch. Many: they are launches of their own, through the room.
  void linear(const LinearArgs& args) override {
    if (args.gate != LinearArgs::Gate::none && !is_one_kind(args.outputs[0].weight, args.outputs[1].weight)) {
      LinearArgs apart = args;  // a launch with a gate reads both weights alike
      apart.gate = LinearArgs::Gate::none;
      linear(apart);
      gate_of(args);
      return;
    }
    const LinearParams& first = args.outputs.front().p;
    const bool suited = suits_tiles(first), narrow = suited && queue_->narrow_tiles();
    const bool tiles = suited && info_.half_tiles && first.n_rows >= info_.tile_rows;
    if (tiles && args.norm.weight != nullptr) rms_norm({args.norm.p, args.norm.weight, args.norm.in, args.in});
    const auto is_wide = [&](const LinearArgs::Output& one) { return wide_tiles() && suits_wide_tiles(one.weight); };
    const SplitRowsParams split = SplitRows::params(first);
    if (tiles && std::any_of(args.outputs.begin(), args.outputs.end(), is_wide))
      queue_->dispatch(split_rows_launch(split, args.in, room_));
    if (!tiles && narrow && are_of_one_launch(args)) return queue_->dispatch(linear_few_launch(args, args.outputs));
    bool beside = false;
    for (const LinearArgs::Output& output : args.outputs) {
      Dispatch launch = tiles && is_wide(output)                      ? linear_wide_launch(args, output, room_)
                        : tiles                                       ? linear_tiles_launch(args, output)
                        : narrow && suits_narrow_tiles(output.weight) ? linear_few_launch(args, {&output, 1})
                                                                      : linear_rows_launch(args, output);
      if (beside) launch.beside();
      beside = true;
      queue_->dispatch(launch);
      if (!tiles && args.gate != LinearArgs::Gate::none) return;
    }
    if (args.gate != LinearArgs::Gate::none) gate_of(args);
  }

  void route(const RouteArgs& args) override { queue_->dispatch(route_launch(args)); }
  void linear_routed(const LinearRoutedArgs& args) override {
    if (!gpu_weight(args.weight).arranged) return queue_->dispatch(linear_routed_launch(args));
    LinearArgs one;  // expert, which all rows go through
    one.in = args.in;
    one.outputs = {{{args.p.n_rows, args.p.in_features, args.p.out_features}, args.weight, args.bias, args.out}};
    linear(one);
  }
  void sum_routed(const SumRoutedArgs& args) override { queue_->dispatch(sum_routed_launch(args)); }

  void short_conv(const ShortConvArgs& args) override {
    in_order(args, [&](const SomeRuns& runs) {
      queue_->dispatch(short_conv_launch(args, runs));
      queue_->dispatch(short_conv_state_launch(args, runs));
    });
  }
  void gated_delta(const GatedDeltaArgs& args) override {
    in_order(args, [&](const SomeRuns& runs) { queue_->dispatch(gated_delta_launch(args, runs)); });
    queue_->dispatch(gated_delta_norm_launch(args));
  }
  void sigmoid_gate(const SigmoidGateArgs& args) override {
    const uint64_t n = uint64_t{args.p.n_rows} * args.p.n_heads * args.p.width;
    queue_->dispatch(Dispatch("sigmoid_gate", {groups(n, kThreads)}, kThreads)
                         .buffer(args.in)
                         .buffer(args.gate)
                         .buffer(args.out)
                         .value(args.p)
                         .costs(moved(1, n, 3)));
  }

  void rope(const RopeArgs& args) override {
    const std::vector<float>& turns = turns_of(args);
    queue_->dispatch(Dispatch("rope", {args.p.n_rows}, kThreads)
                         .buffer(args.in)
                         .buffer(args.out)
                         .buffer(args.positions)
                         .bytes(turns.data(), turns.size() * sizeof(float))
                         .value(args.p)
                         .costs(moved(args.p.n_rows, uint64_t{args.p.n_heads} * args.p.head_dim, 4)));
  }

  void kv_append(const KvAppendArgs& args) override {
    const DType types[] = {static_cast<DType>(args.kv.k_type), static_cast<DType>(args.kv.v_type)};
    if (args.k_rope != nullptr && types[0] == types[1]) return rope_append(args);
    if (args.q_rope != nullptr) rope(*args.q_rope);
    if (args.k_rope != nullptr) rope(*args.k_rope);
    for (uint32_t part = 0; part < 2; ++part) {
      const AppendParams p{args.layer, part, args.n_sequences};
      Dispatch launch("kv_append", {args.n_rows}, KvAppendLaunch::kThreads);
      launch.of(dtype_name(types[part])).buffer(part == 0 ? args.k : args.v);
      sequences(launch, args.sequences, args.n_sequences);
      if (part == 1) launch.beside();
      queue_->dispatch(
          launch.value(args.kv).value(p).costs(moved(args.n_rows, uint64_t{args.kv.n_kv_heads} * args.kv.head_dim, 2)));
    }
  }

  void attention(const AttentionArgs& args) override {
    const uint32_t per_kv_head = args.p.n_heads / args.kv.n_kv_heads;
    const uint32_t prefill = prefill_rows(args.kv, info_.half_tiles);
    const AttentionCall call = attention_call(args, prefill);
    const Span sinks = args.sinks == nullptr ? args.q : span_of(args.sinks);  // then never read
    if (call.prefills != 0) {
      const SplitParams split{0, 0, 0, prefill};
      const uint32_t strip = prefill_strip(args.kv, queue_->few_registers());
      const uint32_t strips = groups(call.most_rows, strip) * per_kv_head;
      const Grid grid{groups(strips, AttentionPrefillLaunch::kSimdgroups), args.kv.n_kv_heads, args.p.n_sequences};
      Dispatch launch("attention_prefill", grid, AttentionPrefillLaunch::kThreads);
      launch.of(kv_format(args.kv, false)).of(std::to_string(args.kv.head_dim).c_str()).buffer(args.q);
      sequences(launch, args.sequences, args.p.n_sequences);
      launch.buffer(args.out).value(args.kv).value(args.p).value(split);
      launch.buffer(sinks).constant(0, args.sinks != nullptr);
      queue_->dispatch(
          launch.costs(call.prefill_seen * call.bytes_of_seen / strip, call.prefill_seen * call.products_of_seen));
    }
    if (call.decodes == 0) return;
    // As many as the longest history has segments, or kMostSplits: either way a query's own splits depend on its
    // position alone.
    const uint32_t splits =
        std::min(groups(call.end, args.p.segment_tokens), uint32_t{AttentionDecodeLaunch::kMostSplits});
    const uint32_t lanes = decode_lanes(args.kv.head_dim),
                   queries = decode_queries(per_kv_head, lanes, queue_->few_registers());
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
      if (call.prefills != 0 && row == 0) decode.beside();
      const double share = call.decode_seen * rows / args.p.n_rows;
      decode.buffer(room_).value(args.kv).value(args.p).value(split);
      queue_->dispatch(decode.costs(share * call.bytes_of_seen, share * call.products_of_seen));
      Dispatch merge("attention_merge", {args.p.n_heads, rows}, AttentionMergeLaunch::kThreads);
      merge.buffer(room_).buffer(args.out).value(args.kv).value(args.p).value(split);
      sequences(merge, args.sequences, args.p.n_sequences);
      merge.buffer(sinks).constant(0, args.sinks != nullptr);
      queue_->dispatch(merge.costs(double{1} * rows * row_partials(args.p.n_heads, args.kv.head_dim)));
    }
  }

  void swiglu(const GatedArgs& args) override { gated("swiglu", args); }
  void geglu(const GatedArgs& args) override { gated("geglu", args); }

  void swiglu_clamped(const ClampedGateArgs& args) override {
    const uint64_t n = uint64_t{args.n_rows} * args.width;
    queue_->dispatch(Dispatch("swiglu_clamped", {groups(n, kThreads)}, kThreads)
                         .buffer(args.gate)
                         .buffer(args.up)
                         .buffer(args.out)
                         .value(n)
                         .value(args.alpha)
                         .value(args.limit)
                         .costs(moved(1, n, 3)));
  }

  void add(const AddArgs& args) override {
    const uint64_t n = uint64_t{args.n_rows} * args.width;
    queue_->dispatch(Dispatch("add", {groups(n, kThreads)}, kThreads)
                         .buffer(args.a)
                         .buffer(args.b)
                         .buffer(args.out)
                         .value(n)
                         .costs(moved(1, n, 3)));
  }

  void gelu(const GeluArgs& args) override {
    const uint64_t n = uint64_t{args.n_rows} * args.width;
    queue_->dispatch(Dispatch("gelu", {groups(n, kThreads)}, kThreads)
                         .buffer(args.in)
                         .buffer(args.out)
                         .value(n)
                         .costs(moved(1, n, 2)));
  }

  void scale(const ScaleArgs& args) override {
    queue_->dispatch(
        Dispatch("scale", {groups(args.p.n, kThreads)}, kThreads).buffer(args.in).buffer(args.out).value(args.p));
  }

  void resize_heads(const ResizeHeadsArgs& args) override {
    queue_->dispatch(Dispatch("resize_heads", {groups(args.p.n, kThreads)}, kThreads)
                         .buffer(args.in)
                         .buffer(args.out)
                         .value(args.p)
                         .costs(moved(1, args.p.n, 2)));
  }

  void select_rows(const SelectRowsArgs& args) override {
    queue_->dispatch(Dispatch("select_rows", {args.n_selected}, kThreads)
                         .buffer(args.rows)
                         .buffer(args.in)
                         .buffer(args.out)
                         .value(args.width)
                         .costs(moved(args.n_selected, args.width, 2)));
  }

  /// As many rows a launch as their parameters may be bound with; the launches are one beside the other.
  void sample(const SampleArgs& args) override {
    for (uint32_t row = 0; row < args.n_rows; row += kMostDrawn) {
      const uint32_t rows = std::min(args.n_rows - row, kMostDrawn);
      Dispatch launch("sample", {rows}, SampleLaunch::kThreads);
      launch.buffer({args.logits.buffer, args.logits.offset + uint64_t{row} * args.vocab_size * sizeof(float)})
          .buffer({args.out.buffer, args.out.offset + row * sizeof(int32_t)})
          .bytes(args.params + row, rows * sizeof(SampleParams))
          .value(args.vocab_size)
          .costs(moved(rows, args.vocab_size, kSamplePasses));
      if (row != 0) launch.beside();
      queue_->dispatch(launch);
    }
  }

  uint64_t submit() override { return queue_->submit(); }
  void drop() noexcept override { queue_->drop(); }
  void wait(uint64_t step) override { queue_->wait(step); }

 private:
  /// The ropes of Q and K in the append's launch.
  void rope_append(const KvAppendArgs& args) {
    const RopeArgs &q = *args.q_rope, &k = *args.k_rope;
    const std::vector<float>& turns = turns_of(k);
    const AppendParams p{args.layer, 0, args.n_sequences};
    Dispatch launch("rope_append", {q.p.n_heads + args.kv.n_kv_heads, args.n_rows}, RopeAppendLaunch::kThreads);
    launch.of(dtype_name(static_cast<DType>(args.kv.k_type)))
        .buffer(q.in)
        .buffer(q.out)
        .buffer(k.in)
        .buffer(k.out)
        .buffer(args.v)
        .buffer(k.positions)
        .bytes(turns.data(), turns.size() * sizeof(float))
        .value(q.p)
        .value(k.p);
    sequences(launch, args.sequences, args.n_sequences);
    const uint64_t width = uint64_t{q.p.n_heads + 2 * args.kv.n_kv_heads} * args.kv.head_dim;
    queue_->dispatch(launch.value(args.kv).value(p).costs(moved(args.n_rows, width, 4)));
  }

  /// A copy in the order of arranged.h, some rows at a time.
  std::unique_ptr<Buffer> arranged(const WeightView& view) {
    constexpr uint64_t kMost = uint64_t{16} << 20;
    const uint64_t row = view.bytes / view.rows, code = code_bytes(view.type, view.cols);
    const uint64_t each = std::max(kMost / row / kArrangedRows, uint64_t{1}) * kArrangedRows;
    std::unique_ptr<Buffer> buffer = queue_->allocate(view.bytes, MemoryKind::device);
    std::vector<std::byte> room(std::min(each, view.rows) * row);
    for (uint64_t at = 0; at < view.rows; at += each) {
      const uint64_t rows = std::min(each, view.rows - at);
      const std::span codes(room.data(), rows * code), scales(room.data() + codes.size(), rows * (row - code));
      arrange(view.type, view.cols, {view.data + at * row, rows * row}, codes, scales);
      queue_->upload({buffer.get(), at * code}, codes);
      queue_->upload({buffer.get(), view.rows * code + at * (row - code)}, scales);
    }
    return buffer;
  }

  /// Many rows take them; strict mode has none.
  bool wide_tiles() const { return info_.half_tiles && queue_->wide_tiles(); }
  static bool is_one_kind(const Weight* a, const Weight* b) {
    return a->type == b->type && gpu_weight(a).arranged == gpu_weight(b).arranged;
  }
  void gate_of(const LinearArgs& args) {
    const LinearParams& p = args.outputs[0].p;
    gated(args.gate == LinearArgs::Gate::swiglu ? "swiglu" : "geglu",
          {p.n_rows, p.out_features, args.outputs[0].out, args.outputs[1].out, args.gated});
  }
  void gated(const char* kernel, const GatedArgs& args) {
    const uint64_t n = uint64_t{args.n_rows} * args.width;
    queue_->dispatch(Dispatch(kernel, {groups(n, kThreads)}, kThreads)
                         .buffer(args.gate)
                         .buffer(args.up)
                         .buffer(args.out)
                         .value(n)
                         .costs(moved(1, n, 3)));
  }

  /// All runs of a recurrent op, as many at a time as can be bound.
  template <class Args, class Run>
  static void in_order(const Args& args, const Run& run) {
    for (uint32_t first = 0; first < args.n_runs; first += kMostRuns)
      run(SomeRuns{args.runs + first, std::min(args.n_runs - first, kMostRuns)});
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

  const std::vector<float>& turns_of(const RopeArgs& args) {
    if (args.factors == nullptr) return turns_.of(args.p, nullptr);
    const GpuWeight& factors = gpu_weight(args.factors);
    return factors.turns.of(args.p, reinterpret_cast<const float*>(factors.mapped));
  }

  std::unique_ptr<KernelQueue> queue_;
  DeviceInfo info_;
  RopeTurns turns_;                              // of ropes without factors
  std::vector<const SequenceParams*> uploaded_;  // in this step, by place
  Span scratch_, room_;  // of a step; of a launch and the one behind it: partial results, or rows that are split
  StepShape shape_;
};

}  // namespace

std::unique_ptr<Device> make_gpu_device(std::unique_ptr<KernelQueue> queue, bool strict) {
  return std::make_unique<GpuDevice>(std::move(queue), strict);
}

}  // namespace foundry
