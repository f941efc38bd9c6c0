// A step: rows of one or several sequences through the graph's body, then its head on the rows whose logits are wanted.
// Everything a step needs is held from load on (one workspace buffer), so a step never fails for want of memory.
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

/// A run of rows of one sequence. `globals` is the session's own encoding, one per layer group (session.cpp, encode_globals).
struct RowRun {
  std::span<const SequenceParams> globals;
  std::span<const int32_t> tokens;
  uint32_t start = 0;
  uint32_t rope_max_seq_len = 0;
};

class StepRunner {
 public:
  StepRunner(Device& device, const Graph& graph, const WeightStore& weights, std::vector<KvParams> kv,
             uint32_t max_rows, uint32_t max_selected);

  /// Bytes of the buffer that attach() wants.
  uint64_t workspace_bytes() const { return workspace_bytes_; }
  void attach(Buffer& workspace) { workspace_ = &workspace; }
  uint32_t max_rows() const { return shape_.max_rows; }
  uint32_t max_selected() const { return max_selected_; }

  /// At most max_rows() rows in all. K and V of each row are in the pages once finish() has returned. The poll is called between
  /// layers.
  void run_body(std::span<const RowRun> runs, const Poll& poll);
  /// Logits [rows.size(), vocab] of rows of the last body; valid until the next call. At most max_selected() rows.
  const float* run_head(std::span<const int32_t> rows);
  /// Until the last body and head have completed.
  void finish() { device_.wait(last_); }
  /// The same, whatever comes of it: then nothing that a failed call wrote to is written to any more.
  void abandon() noexcept { settle(last_), last_ = 0; }
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
  /// Rows of such a step, at most: as many as have the bits of one row alone, for devices' matrix tiles begin at 16.
  static constexpr uint32_t kAheadRows = 15;
  uint32_t most_ahead_rows() const { return std::min({kAheadRows, shape_.max_rows, max_selected_}); }
  /// A row of each run. What goes in are the runs' tokens or, row by row, what the step `after` draws. Nothing: all places are taken.
  std::optional<Ahead> start(std::span<const RowRun> runs, std::span<const SampleParams> params, const Ahead* after);
  /// The token of a row, once the step has completed, as draw() has it.
  int32_t drawn(const Ahead& step, uint32_t row);
  /// Waits for it, whatever becomes of it.
  void settle(const Ahead& step) noexcept { settle(step.step); }
  /// The same, and its place is free.
  void drop(const Ahead& step) noexcept;

 private:
  struct Inputs {
    uint64_t tokens, positions, selected;  // where in the workspace
  };
  void settle(uint64_t step) noexcept;  // ended, well or not
  void begin_body(std::span<const RowRun> runs);
  void begin_step(const Inputs& inputs);
  void encode(const Op& op, const Poll& poll);
  Span at(ValueId value) const;
  uint32_t rows_of(ValueId value) const;
  uint64_t drawn_at(const Ahead& step) const;
  Span place(uint64_t offset) const { return {workspace_, offset}; }

  Device& device_;
  const Graph& graph_;
  const WeightStore& weights_;
  std::vector<KvParams> kv_;
  StepShape shape_;
  uint32_t max_selected_;
  size_t head_begin_ = 0;  // ops[head_begin_] is select_rows
  BufferPlan buffers_;
  Inputs inputs_{};  // of the host's steps
  uint64_t ahead_at_ = 0, arena_at_ = 0, scratch_at_ = 0, workspace_bytes_ = 0;
  Buffer* workspace_ = nullptr;

  uint64_t last_ = 0, newest_ = 0;            // of the host's steps, of all
  std::array<std::atomic<bool>, 8> taken_{};  // places of steps ahead
  using Candidate = std::pair<float, int32_t>;
  std::vector<Candidate> room_;  // for sample()
  std::vector<float> edited_;

  // The step in hand.
  Inputs now_{};
  LinearArgs::Norm norm_;      // of the linear behind it
  const Op* gated_ = nullptr;  // the linear before its gate has run it
  uint32_t n_rows_ = 0, n_selected_ = 0, rope_max_seq_len_ = 0;
  std::vector<std::vector<SequenceParams>> sequences_;  // [group][sequence]
};

}  // namespace foundry
