#include "engine/step.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/sample.h"

namespace foundry {
namespace {
constexpr uint64_t kAlign = 64;
// Tokens, positions, selected rows: a line of memory each. So are the tokens drawn.
constexpr uint64_t kPlaceBytes = 3 * kAlign;
static_assert(StepRunner::kAheadRows * sizeof(int32_t) <= kAlign);
}  // namespace

StepRunner::StepRunner(Device& device, const Graph& graph, const WeightStore& weights, std::vector<KvParams> kv,
                       uint32_t max_rows, uint32_t max_selected)
    : device_(device),
      graph_(graph),
      weights_(weights),
      kv_(std::move(kv)),
      max_selected_(max_selected),
      hidden_(graph.hidden()),
      sequences_(graph.groups.size()) {
  shape_.max_rows = max_rows;
  shape_.max_sequences = max_rows;
  shape_.n_groups = static_cast<u32>(graph.groups.size());
  for (const LayerGroup& group : graph.groups) {
    shape_.n_kv_heads = std::max(shape_.n_kv_heads, group.n_kv_heads);
    shape_.head_dim = std::max(shape_.head_dim, group.head_dim);
  }
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const Op& op = graph.ops[i];
    if (op.is<SelectRowsOp>()) head_begin_ = i;
    if (const auto* attention = op.as<AttentionOp>()) shape_.n_heads = std::max(shape_.n_heads, attention->n_heads);
    if (const auto* rope = op.as<RopeOp>()) shape_.head_dim = std::max(shape_.head_dim, rope->head_dim);
    if (const auto* fused = op.as<FusedAppendOp>()) shape_.head_dim = std::max(shape_.head_dim, fused->q.head_dim);
    if (op.is<LinearOp>() || op.is<FusedLinearOp>())
      shape_.max_in_features = std::max(shape_.max_in_features, width_of(op.inputs[0]));
    if (op.is<RouteOp>()) shape_.n_experts = std::max(shape_.n_experts, width_of(op.inputs[0]));
    if (op.is<LinearRoutedOp>()) {
      shape_.n_used = std::max(shape_.n_used, width_of(op.inputs[1]));
      shape_.max_routed_in = std::max(shape_.max_routed_in, static_cast<u32>(ref_of(op.weights[0]).cols));
    }
  }
  buffers_ = plan_buffers(graph, max_rows, max_selected);
  positions_at_ = round_up(uint64_t{max_rows} * sizeof(int32_t), kAlign);
  selected_at_ = 2 * positions_at_;
  ahead_at_ = selected_at_ + round_up(uint64_t{max_selected} * sizeof(int32_t), kAlign);
  inputs_bytes_ = ahead_at_ + taken_.size() * kPlaceBytes;
  results_room_at_ = (taken_.size() + 1) * kAlign;
  const uint64_t widest = std::max(width(Gives::logits), width(Gives::hidden));
  shared_bytes_ = results_room_at_ + device.room_bytes(max_selected * widest * sizeof(float));
  scratch_at_ = round_up(buffers_.bytes, kAlign);
  device_bytes_ = scratch_at_ + device.scratch_bytes(shape_);
}

void StepRunner::hold_workspace() {
  auto own = device_.allocate(device_bytes_, MemoryKind::device);
  auto shared = device_.allocate(shared_bytes_, MemoryKind::shared);
  told_ = device_.allocate(inputs_bytes_, MemoryKind::mirrored);
  shared_ = std::move(shared), own_ = std::move(own);
}

StepRunner::Inputs StepRunner::inputs() const {
  return {{told_.get(), 0}, {told_.get(), positions_at_}, {told_.get(), selected_at_}};
}

StepRunner::Inputs StepRunner::inputs_at(uint32_t place) const {
  const uint64_t own = ahead_at_ + place * kPlaceBytes;
  return {{told_.get(), own}, {told_.get(), own + kAlign}, {told_.get(), own + 2 * kAlign}};
}

Span StepRunner::drawn_at(uint32_t place) const { return {shared_.get(), place * kAlign}; }

Span StepRunner::at(ValueId value) const { return {own_.get(), buffers_.offsets[static_cast<size_t>(value)]}; }

uint32_t StepRunner::rows_of(ValueId value) const {
  return graph_.values[static_cast<size_t>(value)].rows == Rows::tokens ? n_rows_ : n_selected_;
}

void StepRunner::begin_step(const Inputs& inputs) {
  now_ = inputs;
  device_.begin({own_.get(), scratch_at_}, shape_);
}

/// Who is at which position; tokens are the caller's to place.
void StepRunner::begin_body(std::span<const RowRun> runs) {
  n_rows_ = 0;
  for (auto& group : sequences_) group.clear();
  state_runs_.clear();
  auto* positions = now_.positions.host<int32_t>();
  for (const RowRun& run : runs) {
    const auto count = static_cast<uint32_t>(run.tokens.size());
    if (n_rows_ + count > shape_.max_rows) throw ConsistencyError("a step of more rows than its workspace holds");
    for (size_t g = 0; g < sequences_.size(); ++g) {
      SequenceParams params = run.globals[g];
      params.first_row = n_rows_;
      params.n_rows = count;
      params.start = run.start;
      if (run.start + count > params.max_seq_len)
        throw ConsistencyError("a step past the pages that its session holds");
      sequences_[g].push_back(params);
    }
    uint32_t through = 0;  // recurrent layers
    for (StateRun piece : run.states) {
      through += piece.n_rows;
      piece.first_row += n_rows_;
      state_runs_.push_back(piece);
    }
    if (through != (graph_.recurrent.n_layers == 0 ? 0 : count))
      throw ConsistencyError("a step whose recurrent layers have " + std::to_string(through) + " of its " +
                             std::to_string(count) + " rows");
    for (uint32_t i = 0; i < count; ++i) positions[n_rows_ + i] = static_cast<int32_t>(run.start + i);
    n_rows_ += count;
  }
  wrote(now_.positions, n_rows_);
}

void StepRunner::run_body(std::span<const RowRun> runs, const Poll& poll) {
  wait_out(last_);  // its inputs are these
  begin_step(inputs());
  begin_body(runs);
  auto* tokens = now_.tokens.host<int32_t>();
  for (const RowRun& run : runs) tokens = std::copy(run.tokens.begin(), run.tokens.end(), tokens);
  wrote(now_.tokens, n_rows_);
  for (size_t i = 0; i < head_begin_; ++i) encode(graph_.ops[i], poll);
  last_ = newest_ = device_.submit();
}

const float* StepRunner::run_head(std::span<const int32_t> rows, Gives gives) {
  n_selected_ = static_cast<uint32_t>(rows.size());
  begin_step(inputs());
  std::memcpy(now_.selected.host<int32_t>(), rows.data(), rows.size_bytes());
  wrote(now_.selected, n_selected_);
  const size_t end = gives == Gives::logits ? graph_.ops.size() : head_begin_ + 1;
  for (size_t i = head_begin_; i < end; ++i) encode(graph_.ops[i], Poll{});
  if (gives == Gives::hidden) encode_last_norm();
  last_ = newest_ = device_.submit();
  finish();
  const Span results = at(result_of(gives));
  std::byte* seen = device_.window(results, {shared_.get(), results_room_at_});
  device_.download(results, {seen, rows.size() * width(gives) * sizeof(float)});
  return reinterpret_cast<const float*>(seen);
}

void StepRunner::encode_last_norm() {
  const Op& op = graph_.ops[head_begin_ + 1];
  const auto* joined = op.as<FusedLinearOp>();
  if (joined == nullptr) return encode(op, Poll{});
  const Weight* w = table(op.weights[2 * joined->n_linears]);
  device_.rms_norm({norm_params(op.inputs[0], *w, joined->norm->eps), w, at(op.inputs[0]), at(op.rooms[0])});
}

void StepRunner::wait_out(uint64_t step) noexcept {
  try {
    device_.wait(step);
  } catch (const Error&) {  // whoever wanted its results has been told, or will be
  }
}

uint64_t StepRunner::draw_room_bytes() const {
  return graph_.arch.vocab_size * (sizeof(float) + (steps_ahead() == 0 ? sizeof(Candidate) : 0));
}

void StepRunner::make_draw_room() {
  edited_.reserve(graph_.arch.vocab_size);
  if (steps_ahead() == 0) room_.reserve(graph_.arch.vocab_size);
}

std::span<float> StepRunner::editable(std::span<const float> logits) {
  edited_.assign(logits.begin(), logits.end());
  return edited_;
}

int32_t StepRunner::draw(std::span<const float> logits, const SampleParams& params) {
  if (steps_ahead() == 0) return sample(logits, params, room_);
  const Span row = at(graph_.logits), out = drawn_at(static_cast<uint32_t>(taken_.size()));
  device_.upload(row, std::as_bytes(logits));  // steps ahead use that row too: behind them
  begin_step(inputs());
  device_.sample({1, static_cast<uint32_t>(logits.size()), &params, row, out});
  last_ = newest_ = device_.submit();
  finish();
  return *out.host<int32_t>();
}

std::optional<StepRunner::Ahead> StepRunner::start(std::span<const RowRun> runs, std::span<const SampleParams> params,
                                                   const Ahead* after) {
  Ahead step{0, 0};
  while (step.place < taken_.size() && taken_[step.place].exchange(true)) ++step.place;
  if (step.place == taken_.size()) return {};
  try {
    begin_step(inputs_at(step.place));
    begin_body(runs);
    n_selected_ = n_rows_;
    for (uint32_t i = 0; i < n_rows_; ++i) {
      now_.tokens.host<int32_t>()[i] = runs[i].tokens.front();
      now_.selected.host<int32_t>()[i] = static_cast<int32_t>(i);
    }
    wrote(now_.tokens, n_rows_);
    wrote(now_.selected, n_rows_);
    if (after != nullptr) now_.tokens = drawn_at(after->place);
    for (const Op& op : graph_.ops) encode(op, Poll{});
    device_.sample({n_rows_, graph_.arch.vocab_size, params.data(), at(graph_.logits), drawn_at(step.place)});
    step.step = newest_ = device_.submit();
  } catch (...) {
    device_.drop();
    taken_[step.place] = false;
    throw;
  }
  return step;
}

int32_t StepRunner::drawn(const Ahead& step, uint32_t row) {
  device_.wait(step.step);
  return drawn_at(step.place).host<int32_t>()[row];
}

void StepRunner::drop(const Ahead& step) noexcept {
  wait_out(step.step);
  taken_[step.place] = false;
}

void StepRunner::encode(const Op& op, const Poll& poll) {
  if (poll && op.is<AttentionOp>()) poll();
  std::visit([&](const auto& kind) { encode(op, kind); }, op.kind);
}

void StepRunner::encode(const Op& op, const EmbedOp& embed) {
  const Weight* w = table(op.weights[0]);
  const ValueId y = op.outputs[0];
  device_.embed({{n_rows_, width_of(y), embed.scale}, w, now_.tokens, at(y)});
}

RmsNormParams StepRunner::norm_params(ValueId x, const Weight& scale, float eps) const {
  const auto n = static_cast<u32>(scale.cols);
  return {rows_of(x) * (width_of(x) / n), n, eps};
}

void StepRunner::encode(const Op& op, const RmsNormOp& norm) {
  const Weight* w = table(op.weights[0]);
  device_.rms_norm({norm_params(op.inputs[0], *w, norm.eps), w, at(op.inputs[0]), at(op.outputs[0])});
}

LinearArgs::Output StepRunner::linear_of(ValueId x, ValueId y, WeightId weight, WeightId bias) const {
  const Weight* w = weights_.get(weight, WeightUse::linear);
  return {{rows_of(x), width_of(x), width_of(y)}, w, table(bias), at(y)};
}

void StepRunner::encode(const Op& op, const LinearOp&) {
  LinearArgs args;
  args.in = at(op.inputs[0]);
  args.outputs = {linear_of(op.inputs[0], op.outputs[0], op.weights[0], op.weights[1])};
  device_.linear(args);
}

void StepRunner::encode(const Op& op, const FusedLinearOp& fused) {
  const ValueId x = op.inputs[0];
  const size_t n = fused.n_linears;
  LinearArgs args;
  args.in = at(x);
  if (fused.norm) {
    const Weight* w = table(op.weights[2 * n]);
    args.norm = {w, norm_params(x, *w, fused.norm->eps), at(x)};
    args.in = at(op.rooms[0]);
  }
  if (fused.residual) args.residual = at(op.inputs[1]);
  const bool gated = fused.gate != FusedLinearOp::Gate::none;
  args.outputs.reserve(n);
  const auto results = gated ? std::span(op.rooms).last(n) : std::span(op.outputs);
  for (size_t i = 0; i < n; ++i) args.outputs.push_back(linear_of(x, results[i], op.weights[i], op.weights[n + i]));
  if (gated) {
    args.gate = fused.gate == FusedLinearOp::Gate::swiglu ? LinearArgs::Gate::swiglu : LinearArgs::Gate::geglu;
    args.gated = at(op.outputs[0]);
  }
  device_.linear(args);
}

RopeArgs StepRunner::rope_of(const RopeOp& rope, WeightId factors, ValueId in, ValueId out) const {
  return {{n_rows_, rope.n_heads, rope.head_dim, rope.rot_dim, rope.style, rope.base, rope.scale, rope.magnitude,
           rope.temperature, rope.temperature_length},
          table(factors),
          now_.positions,
          at(in),
          at(out)};
}

KvAppendArgs StepRunner::append_of(const KvAppendOp& append, ValueId k, ValueId v) const {
  const auto& sequences = sequences_[append.group];
  return {kv_[append.group], append.layer, n_rows_, static_cast<u32>(sequences.size()), sequences.data(), at(k), at(v)};
}

void StepRunner::encode(const Op& op, const RopeOp& rope) {
  device_.rope(rope_of(rope, op.weights[0], op.inputs[0], op.outputs[0]));
}

void StepRunner::encode(const Op& op, const KvAppendOp& append) {
  device_.kv_append(append_of(append, op.inputs[0], op.inputs[1]));
}

void StepRunner::encode(const Op& op, const FusedAppendOp& fused) {
  const RopeArgs q = rope_of(fused.q, op.weights[0], op.inputs[0], op.outputs[0]),
                 k = rope_of(fused.k, op.weights[0], op.inputs[1], op.rooms[0]);
  KvAppendArgs args = append_of(fused.append, op.rooms[0], op.inputs[2]);
  args.q_rope = &q, args.k_rope = &k;
  device_.kv_append(args);
}

void StepRunner::encode(const Op& op, const AttentionOp& attention) {
  const auto& sequences = sequences_[attention.group];
  device_.attention({{n_rows_, attention.n_heads, static_cast<u32>(sequences.size()), attention.layer, attention.scale,
                      graph_.groups[attention.group].window, kSegmentTokens, attention.cap},
                     kv_[attention.group],
                     sequences.data(),
                     at(op.inputs[0]),
                     at(op.outputs[0]),
                     op.weights.empty() ? nullptr : table(op.weights[0])});
}

void StepRunner::encode(const Op& op, const SwigluOp&) {
  const ValueId gate = op.inputs[0];
  device_.swiglu({rows_of(gate), width_of(gate), at(gate), at(op.inputs[1]), at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const GegluOp&) {
  const ValueId gate = op.inputs[0];
  device_.geglu({rows_of(gate), width_of(gate), at(gate), at(op.inputs[1]), at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const SwigluClampedOp& swiglu) {
  const ValueId gate = op.inputs[0];
  device_.swiglu_clamped(
      {rows_of(gate), width_of(gate), swiglu.alpha, swiglu.limit, at(gate), at(op.inputs[1]), at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const LayerNormOp& norm) {
  const ValueId x = op.inputs[0];
  const Weight* bias = table(op.weights[1]);
  device_.layer_norm({{rows_of(x), width_of(x), norm.eps, bias == nullptr ? 0u : 1u},
                      table(op.weights[0]),
                      bias,
                      at(x),
                      at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const GeluOp&) {
  const ValueId x = op.inputs[0];
  device_.gelu({rows_of(x), width_of(x), at(x), at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const ScaleOp& scale) {
  const ValueId x = op.inputs[0];
  device_.scale({{u64{rows_of(x)} * width_of(x), scale.scale, scale.cap}, at(x), at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const ResizeHeadsOp& resize) {
  const ValueId y = op.outputs[0];
  device_.resize_heads({{u64{rows_of(y)} * width_of(y), resize.from, resize.to}, at(op.inputs[0]), at(y)});
}

void StepRunner::encode(const Op& op, const AddOp&) {
  const ValueId a = op.inputs[0];
  device_.add({rows_of(a), width_of(a), at(a), at(op.inputs[1]), at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const RouteOp& route) {
  const ValueId scores = op.inputs[0];
  device_.route({{rows_of(scores), width_of(scores), route.n_used, route.gate, route.normalise, route.scale,
                  route.n_groups, route.n_groups_used},
                 table(op.weights[0]),
                 at(scores),
                 at(op.outputs[0]),
                 at(op.outputs[1])});
}

void StepRunner::encode(const Op& op, const LinearRoutedOp&) {
  const ValueId x = op.inputs[0], chosen = op.inputs[1];
  const WeightRef& w = ref_of(op.weights[0]);
  const auto in = static_cast<u32>(w.cols), n_used = width_of(chosen);
  device_.linear_routed(
      {{rows_of(x), static_cast<u32>(w.experts), n_used, width_of(x) / in, in, static_cast<u32>(w.rows)},
       weights_.get(op.weights[0], WeightUse::linear),
       table(op.weights[1]),
       at(x),
       at(chosen),
       at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const SumRoutedOp&) {
  const ValueId y = op.outputs[0], weights = op.inputs[1];
  device_.sum_routed({{rows_of(y), width_of(weights), width_of(y)}, at(op.inputs[0]), at(weights), at(y)});
}

void StepRunner::encode(const Op& op, const ShortConvOp& conv) {
  const ValueId y = op.outputs[0];
  const auto taps = static_cast<u32>(ref_of(op.weights[0]).cols);
  device_.short_conv({{n_rows_, width_of(y), taps, conv.gated, conv.silu, 0, state_at_bytes(conv.layer, conv.part)},
                      state_runs_.data(),
                      static_cast<u32>(state_runs_.size()),
                      table(op.weights[0]),
                      table(op.weights[1]),
                      at(op.inputs[0]),
                      at(y)});
}

/// Where a part of a recurrent layer's state begins in a state.
uint64_t StepRunner::state_at_bytes(uint32_t layer, uint32_t part) const {
  return (layer * graph_.recurrent.width() + graph_.recurrent.at(part)) * sizeof(float);
}

void StepRunner::encode(const Op& op, const GatedDeltaOp& delta) {
  device_.gated_delta({{n_rows_, delta.k_heads, delta.v_heads, delta.head_k, delta.head_v, delta.eps, delta.qk_eps, 0,
                        state_at_bytes(delta.layer, delta.part)},
                       state_runs_.data(),
                       static_cast<u32>(state_runs_.size()),
                       table(op.weights[0]),
                       table(op.weights[1]),
                       table(op.weights[2]),
                       at(op.inputs[0]),
                       at(op.inputs[1]),
                       at(op.inputs[2]),
                       at(op.inputs[3]),
                       at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const SigmoidGateOp& gate) {
  const ValueId x = op.inputs[0];
  device_.sigmoid_gate({{rows_of(x), gate.n_heads, width_of(x) / gate.n_heads, width_of(op.inputs[1]) / gate.n_heads},
                        at(x),
                        at(op.inputs[1]),
                        at(op.outputs[0])});
}

void StepRunner::encode(const Op& op, const SelectRowsOp&) {
  const ValueId x = op.inputs[0];
  device_.select_rows({n_selected_, width_of(x), now_.selected, at(x), at(op.outputs[0])});
}

}  // namespace foundry
