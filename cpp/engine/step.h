// A step: rows of one or several sequences through the graph's body, then its head on the rows whose logits are wanted.
// Everything a step needs is held from load on (one workspace buffer), so a step never fails for want of memory.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/weights.h"
#include "graph/graph.h"
#include "kv/kv.h"

namespace foundry {

/// Called between layers; throws to abandon the step.
using Poll = std::function<void()>;

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

  /// At most max_rows() rows in all. K and V of each row are in the pages when it returns.
  void run_body(std::span<const RowRun> runs, const Poll& poll);
  /// Logits [rows.size(), vocab] of rows of the last body; valid until the next call. At most max_selected() rows.
  const float* run_head(std::span<const int32_t> rows);

 private:
  void encode(const Op& op, const Poll& poll);
  Span at(ValueId value) const;
  uint32_t rows_of(ValueId value) const;
  Span place(uint64_t offset) const { return {workspace_, offset}; }

  Device& device_;
  const Graph& graph_;
  const WeightStore& weights_;
  std::vector<KvParams> kv_;
  StepShape shape_;
  uint32_t max_selected_;
  size_t head_begin_ = 0;  // ops[head_begin_] is select_rows
  BufferPlan buffers_;
  uint64_t tokens_at_ = 0, positions_at_ = 0, selected_at_ = 0, arena_at_ = 0, scratch_at_ = 0, workspace_bytes_ = 0;
  Buffer* workspace_ = nullptr;

  // The step in hand.
  uint32_t n_rows_ = 0, n_selected_ = 0, rope_max_seq_len_ = 0;
  std::vector<std::vector<SequenceParams>> sequences_;  // [group][sequence]
};

}  // namespace foundry
