#include "engine/step.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/sample.h"

namespace foundry {
namespace {
constexpr uint64_t kAlign = 64;
// Tokens, positions, selected rows, the tokens drawn: a line of memory each.
constexpr uint64_t kPlaceBytes = 4 * kAlign;
static_assert(StepRunner::kAheadRows * sizeof(int32_t) <= kAlign);
}  // namespace

StepRunner::StepRunner(Device& device, const Graph& graph, const WeightStore& weights, std::vector<KvParams> kv,
                       uint32_t max_rows, uint32_t max_selected)
    : device_(device),
      graph_(graph),
      weights_(weights),
      kv_(std::move(kv)),
      max_selected_(max_selected),
      sequences_(graph.groups.size()) {
  shape_.max_rows = max_rows;
  shape_.max_sequences = max_rows;
  shape_.n_groups = static_cast<u32>(graph.groups.size());
  shape_.n_heads = graph.arch.n_heads;
  for (const LayerGroup& group : graph.groups) {
    shape_.n_kv_heads = std::max(shape_.n_kv_heads, group.n_kv_heads);
    shape_.head_dim = std::max(shape_.head_dim, group.head_dim);
  }
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const Op& op = graph.ops[i];
    if (op.kind == OpKind::select_rows) head_begin_ = i;
    if (op.kind == OpKind::rope) shape_.head_dim = std::max(shape_.head_dim, op.head_dim);
    if (op.kind == OpKind::linear)
      shape_.max_in_features = std::max(shape_.max_in_features, graph.values[static_cast<size_t>(op.inputs[0])].width);
  }
  buffers_ = plan_buffers(graph, max_rows, max_selected);
  inputs_.positions = round_up(uint64_t{max_rows} * sizeof(int32_t), kAlign);
  inputs_.selected = 2 * inputs_.positions;
  ahead_at_ = inputs_.selected + round_up(uint64_t{max_selected} * sizeof(int32_t), kAlign);
  arena_at_ = ahead_at_ + (taken_.size() + 1) * kPlaceBytes;  // the last place is draw()'s
  scratch_at_ = round_up(arena_at_ + buffers_.bytes, kAlign);
  workspace_bytes_ = scratch_at_ + device.scratch_bytes(shape_);
}

Span StepRunner::at(ValueId value) const { return place(arena_at_ + buffers_.offsets[static_cast<size_t>(value)]); }

uint64_t StepRunner::drawn_at(const Ahead& step) const { return ahead_at_ + step.place * kPlaceBytes + 3 * kAlign; }

uint32_t StepRunner::rows_of(ValueId value) const {
  return graph_.values[static_cast<size_t>(value)].rows == Rows::tokens ? n_rows_ : n_selected_;
}

void StepRunner::begin_step(const Inputs& inputs) {
  now_ = inputs, norm_ = {}, gated_ = nullptr;
  device_.begin(place(scratch_at_), shape_);
}

/// Who is at which position; tokens are the caller's to place.
void StepRunner::begin_body(std::span<const RowRun> runs) {
  n_rows_ = 0;
  rope_max_seq_len_ = 0;
  for (auto& group : sequences_) group.clear();
  auto* positions = place(now_.positions).as<int32_t>();
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
    rope_max_seq_len_ = std::max(rope_max_seq_len_, run.rope_max_seq_len);
    for (uint32_t i = 0; i < count; ++i) positions[n_rows_ + i] = static_cast<int32_t>(run.start + i);
    n_rows_ += count;
  }
}

void StepRunner::run_body(std::span<const RowRun> runs, const Poll& poll) {
  settle(last_);  // its inputs are these
  begin_step(inputs_);
  begin_body(runs);
  auto* tokens = place(now_.tokens).as<int32_t>();
  for (const RowRun& run : runs) tokens = std::copy(run.tokens.begin(), run.tokens.end(), tokens);
  for (size_t i = 0; i < head_begin_; ++i) encode(graph_.ops[i], poll);
  last_ = newest_ = device_.submit();
}

const float* StepRunner::run_head(std::span<const int32_t> rows) {
  n_selected_ = static_cast<uint32_t>(rows.size());
  begin_step(inputs_);
  std::memcpy(place(now_.selected).as<int32_t>(), rows.data(), rows.size_bytes());
  for (size_t i = head_begin_; i < graph_.ops.size(); ++i) encode(graph_.ops[i], {});
  last_ = newest_ = device_.submit();
  finish();
  return at(graph_.logits).as<float>();
}

void StepRunner::settle(uint64_t step) noexcept {
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
  const Span row = at(graph_.logits), out = place(ahead_at_ + taken_.size() * kPlaceBytes);
  settle(newest_);
  if (row.as<float>() != logits.data()) std::memcpy(row.as<float>(), logits.data(), logits.size_bytes());
  begin_step(inputs_);
  device_.sample({1, static_cast<uint32_t>(logits.size()), &params, row, out});
  last_ = newest_ = device_.submit();
  finish();
  return *out.as<int32_t>();
}

std::optional<StepRunner::Ahead> StepRunner::start(std::span<const RowRun> runs, std::span<const SampleParams> params,
                                                   const Ahead* after) {
  Ahead step{0, 0};
  while (step.place < taken_.size() && taken_[step.place].exchange(true)) ++step.place;
  if (step.place == taken_.size()) return {};
  try {
    const uint64_t own = ahead_at_ + step.place * kPlaceBytes;
    begin_step({own, own + kAlign, own + 2 * kAlign});
    begin_body(runs);
    n_selected_ = n_rows_;
    for (uint32_t i = 0; i < n_rows_; ++i) {
      place(now_.tokens).as<int32_t>()[i] = runs[i].tokens.front();
      place(now_.selected).as<int32_t>()[i] = static_cast<int32_t>(i);
    }
    if (after != nullptr) now_.tokens = drawn_at(*after);
    for (const Op& op : graph_.ops) encode(op, {});
    device_.sample({n_rows_, graph_.arch.vocab_size, params.data(), at(graph_.logits), place(drawn_at(step))});
    step.step = newest_ = device_.submit();
  } catch (...) {
    taken_[step.place] = false;
    throw;
  }
  return step;
}

int32_t StepRunner::drawn(const Ahead& step, uint32_t row) {
  device_.wait(step.step);
  return place(drawn_at(step)).as<int32_t>()[row];
}

void StepRunner::drop(const Ahead& step) noexcept {
  settle(step.step);
  taken_[step.place] = false;
}

void StepRunner::encode(const Op& op, const Poll& poll) {
  const ValueId in = op.inputs.empty() ? kNone : op.inputs[0];
  const ValueId out = op.outputs.empty() ? kNone : op.outputs[0];
  const auto width = [&](ValueId v) { return graph_.values[static_cast<size_t>(v)].width; };
  const auto table = [&](size_t i) { return weights_.get(op.weights[i], WeightUse::table); };
  switch (op.kind) {
    case OpKind::embed: {
      const Weight* w = table(0);
      device_.embed({{n_rows_, width(out), static_cast<u32>(w->rows), static_cast<u32>(w->type), op.scale, 0},
                     w,
                     place(now_.tokens),
                     at(out)});
      break;
    }
    case OpKind::rms_norm: {
      const Weight* w = table(0);
      const auto n = static_cast<u32>(w->cols);
      const RmsNormParams p{rows_of(in) * (width(in) / n), n, op.eps, 0};
      if (op.with_next)
        norm_ = {w, p, at(in)};
      else
        device_.rms_norm({p, w, at(in), at(out)});
      break;
    }
    case OpKind::linear: {
      LinearArgs args;
      args.in = at(in), args.norm = std::exchange(norm_, {});
      if (op.inputs.size() > 1) args.residual = at(op.inputs[1]);
      const size_t n = op.outputs.size();
      args.outputs.reserve(n);
      for (size_t i = 0; i < n; ++i) {
        const Weight* w = weights_.get(op.weights[i], WeightUse::linear);
        args.outputs.push_back({{rows_of(in), width(in), width(op.outputs[i]), static_cast<u32>(w->type)},
                                w,
                                op.weights.size() > n + i ? table(n + i) : nullptr,
                                at(op.outputs[i])});
      }
      if (op.with_next) {
        const Op& gate = *(&op + 1);
        args.gate = gate.kind == OpKind::swiglu ? LinearArgs::Gate::swiglu : LinearArgs::Gate::geglu;
        args.gated = at(gate.outputs[0]);
        gated_ = &gate;
      }
      device_.linear(args);
      break;
    }
    case OpKind::rope:
      device_.rope(
          {{n_rows_, op.n_heads, op.head_dim, op.rot_dim, op.rope_style, rope_max_seq_len_, op.rope_base, op.scale},
           op.weights.empty() ? nullptr : table(0),
           place(now_.positions),
           at(in),
           at(out)});
      break;
    case OpKind::kv_append: {
      const auto& sequences = sequences_[op.group];
      device_.kv_append({kv_[op.group], op.layer, n_rows_, static_cast<u32>(sequences.size()), sequences.data(), at(in),
                         at(op.inputs[1])});
      break;
    }
    case OpKind::attention: {
      if (poll) poll();
      const auto& sequences = sequences_[op.group];
      device_.attention(
          {{n_rows_, op.n_heads, static_cast<u32>(sequences.size()), op.layer, op.scale, op.window, kSegmentTokens, 0},
           kv_[op.group],
           sequences.data(),
           at(in),
           at(out)});
      break;
    }
    case OpKind::swiglu:
      if (std::exchange(gated_, nullptr) == &op) break;
      device_.swiglu({rows_of(in), width(in), at(in), at(op.inputs[1]), at(out)});
      break;
    case OpKind::geglu:
      if (std::exchange(gated_, nullptr) == &op) break;
      device_.geglu({rows_of(in), width(in), at(in), at(op.inputs[1]), at(out)});
      break;
    case OpKind::add:
      device_.add({rows_of(in), width(in), at(in), at(op.inputs[1]), at(out)});
      break;
    case OpKind::select_rows:
      device_.select_rows({n_selected_, width(in), place(now_.selected), at(in), at(out)});
      break;
  }
}

}  // namespace foundry
