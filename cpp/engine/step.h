// A step: rows of one or several sequences through the graph's body, then its head on the rows whose logits are wanted.
// Everything a step needs is held from load on (the workspace), so a step never fails for want of memory.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/fair_lock.h"
#include "engine/weights.h"
#include "graph/graph.h"
#include "kv/kv.h"

namespace foundry {

/// What is made of a row at the end: logits [vocab], or the hidden state behind the last norm [hidden_size].
enum class Gives : uint32_t { logits, hidden };

/// A run of rows of one sequence. `globals` is the sequence's own encoding, one per layer group (Sequence::encode).
struct RowRun {
  std::span<const SequenceParams> globals;
  std::span<const int32_t> tokens;
  uint32_t start = 0;
  std::vector<StateRun> states{};  // rows counted from the run's first; none where there are no recurrent layers
};

class StepRunner {
 public:
  StepRunner(Device& device, const Graph& graph, const WeightStore& weights, std::vector<KvParams> kv,
             uint32_t max_rows, uint32_t max_selected);

  /// Bytes that hold_workspace() allocates: before the first step.
  uint64_t workspace_bytes() const { return inputs_bytes_ + shared_bytes_ + device_bytes_; }
  void hold_workspace();
  /// Of the workspace, from the buffers' own lengths; 0 before it is held.
  uint64_t held_bytes() const { return told_ == nullptr ? 0 : told_->bytes() + shared_->bytes() + own_->bytes(); }
  uint32_t max_rows() const { return shape_.max_rows; }
  uint32_t max_selected() const { return max_selected_; }

  /// At most max_rows() rows in all. K and V of each row are in the pages once finish() has returned. The poll is called between
  /// layers.
  void run_body(std::span<const RowRun> runs, const Poll& poll);
  /// Of rows of the last body what they give, [rows.size(), width(gives)]; valid until the next call. At most
  /// max_selected() rows. For hidden states no logit is computed.
  const float* run_head(std::span<const int32_t> rows, Gives gives = Gives::logits);
  /// Values of a row; 0 where the graph has no such thing.
  uint32_t width(Gives gives) const {
    const ValueId value = result_of(gives);
    return value == kNone ? 0 : width_of(value);
  }
  /// Until the last body and head have completed.
  void finish() { device_.wait(last_); }
  /// The same, whatever comes of it, and of what was encoded meanwhile: then nothing that a failed call wrote to, or
  /// read, is touched any more.
  void abandon() noexcept { device_.drop(), wait_out(last_), last_ = 0; }
  /// A token of a row of the last head's logits, -1 where none can be drawn (base/sample.h): by the device where it runs beside the
  /// host, else here. Rows are drawn in ascending order, by whoever leads.
  int32_t draw(std::span<const float> logits, const SampleParams& params);
  /// A copy of a row to change before it is drawn from; valid until the next.
  std::span<float> editable(std::span<const float> logits);
  /// Of the host: room for a row that is changed, and, where the device does not draw, for candidates. One for all who draw.
  uint64_t draw_room_bytes() const;
  void make_draw_room();

  // Steps that run ahead of the host: a token of each sequence goes in, and the next one is drawn where it was computed.
  struct Ahead {
    uint64_t step;   // the device's number of it
    uint32_t place;  // of its inputs and its token in the workspace
  };
  /// How many may be under way at once; 0: the device computes as it is told, and there is nothing to gain.
  uint32_t steps_ahead() const { return device_.info().steps_ahead; }
  /// Rows of such a step, at most: as many as have the bits of one row alone, for devices' matrix tiles
  /// begin at 16, or later.
  static constexpr uint32_t kAheadRows = 15;
  uint32_t most_ahead_rows() const { return std::min({kAheadRows, shape_.max_rows, max_selected_}); }
  /// A row of each run. What goes in are the runs' tokens or, row by row, what the step `after` draws. Nothing: all places are taken.
  std::optional<Ahead> start(std::span<const RowRun> runs, std::span<const SampleParams> params, const Ahead* after);
  /// The token of a row, once the step has completed, as draw() has it.
  int32_t drawn(const Ahead& step, uint32_t row);
  /// Waits for it, whatever becomes of it.
  void wait_out(const Ahead& step) noexcept { wait_out(step.step); }
  /// The same, and its place is free.
  void drop(const Ahead& step) noexcept;

 private:
  struct Inputs {
    Span tokens, positions, selected;
  };
  void wait_out(uint64_t step) noexcept;  // ended, well or not
  void begin_body(std::span<const RowRun> runs);
  void begin_step(const Inputs& inputs);
  void encode(const Op& op, const Poll& poll);
  // Ops by kind.
  void encode(const Op& op, const EmbedOp& embed);
  void encode(const Op& op, const RmsNormOp& norm);
  void encode(const Op& op, const LayerNormOp& norm);
  void encode(const Op& op, const LinearOp& linear);
  void encode(const Op& op, const FusedLinearOp& fused);
  void encode(const Op& op, const RopeOp& rope);
  void encode(const Op& op, const KvAppendOp& append);
  void encode(const Op& op, const FusedAppendOp& fused);
  void encode(const Op& op, const AttentionOp& attention);
  void encode(const Op& op, const SwigluOp& swiglu);
  void encode(const Op& op, const GegluOp& geglu);
  void encode(const Op& op, const SwigluClampedOp& swiglu);
  void encode(const Op& op, const GeluOp& gelu);
  void encode(const Op& op, const ScaleOp& scale);
  void encode(const Op& op, const ResizeHeadsOp& resize);
  void encode(const Op& op, const AddOp& add);
  void encode(const Op& op, const RouteOp& route);
  void encode(const Op& op, const LinearRoutedOp& routed);
  void encode(const Op& op, const SumRoutedOp& sum);
  void encode(const Op& op, const ShortConvOp& conv);
  void encode(const Op& op, const GatedDeltaOp& delta);
  void encode(const Op& op, const SigmoidGateOp& gate);
  uint64_t state_at_bytes(uint32_t layer, uint32_t part) const;
  void encode(const Op& op, const SelectRowsOp& select);
  /// The norm behind select_rows, by itself where the device has joined it with the linear of the logits.
  void encode_last_norm();
  ValueId result_of(Gives gives) const { return gives == Gives::logits ? graph_.logits : hidden_; }
  RmsNormParams norm_params(ValueId x, const Weight& scale, float eps) const;
  RopeArgs rope_of(const RopeOp& rope, WeightId factors, ValueId in, ValueId out) const;
  KvAppendArgs append_of(const KvAppendOp& append, ValueId k, ValueId v) const;
  LinearArgs::Output linear_of(ValueId x, ValueId y, WeightId weight, WeightId bias) const;
  uint32_t width_of(ValueId value) const { return graph_.values[static_cast<size_t>(value)].width; }
  const WeightRef& ref_of(WeightId id) const { return graph_.weights[static_cast<size_t>(id)]; }
  const Weight* table(WeightId id) const { return weights_.get(id, WeightUse::table); }
  Span at(ValueId value) const;
  uint32_t rows_of(ValueId value) const;
  /// The host's, or those of a place of steps ahead.
  Inputs inputs() const;
  Inputs inputs_at(uint32_t place) const;
  /// Where a step's tokens are drawn to, a place each; the last is draw()'s.
  Span drawn_at(uint32_t place) const;
  /// The host has put them there.
  static void wrote(const Span& input, uint64_t n) { input.buffer->wrote(input.offset, n * sizeof(int32_t)); }

  Device& device_;
  const Graph& graph_;
  const WeightStore& weights_;
  std::vector<KvParams> kv_;
  StepShape shape_;
  uint32_t max_selected_;
  size_t head_begin_ = 0;  // ops[head_begin_] is select_rows
  ValueId hidden_;
  BufferPlan buffers_;
  // The workspace. Mirrored: inputs of the host's steps | of places of steps ahead. Shared: tokens drawn, a place each |
  // room for logits or hidden states. Of the device: values | scratch.
  uint64_t positions_at_ = 0, selected_at_ = 0, ahead_at_ = 0, inputs_bytes_ = 0;
  uint64_t results_room_at_ = 0, shared_bytes_ = 0, scratch_at_ = 0, device_bytes_ = 0;
  std::unique_ptr<Buffer> told_, shared_, own_;

  uint64_t last_ = 0, newest_ = 0;            // of the host's steps, of all
  std::array<std::atomic<bool>, 8> taken_{};  // places of steps ahead
  using Candidate = std::pair<float, int32_t>;
  std::vector<Candidate> room_;  // for sample()
  std::vector<float> edited_;

  // The step in hand.
  Inputs now_{};
  uint32_t n_rows_ = 0, n_selected_ = 0;
  std::vector<std::vector<SequenceParams>> sequences_;  // [group][sequence]
  std::vector<StateRun> state_runs_;
};

}  // namespace foundry
