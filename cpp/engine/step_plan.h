// Who gets how many rows of a step: planning alone, no running (the idea: nano-vllm's scheduler).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace foundry {

/// Rows for each of those who wait, in the order of their turns, from the rows that each still has to run. Whoever has one row left (a
/// decode, or the end of a prompt) gets it first; then prompts, in order, up to prompt_rows of them. At most most_rows in all.
std::vector<uint32_t> plan_step(std::span<const uint64_t> rows_left, uint32_t most_rows, uint32_t prompt_rows);

/// How long prompts' parts of a step may be while others decode, learnt from the steps that there were.
class ChunkSize {
 public:
  explicit ChunkSize(uint32_t most_rows) : most_(most_rows) {}
  void learn(uint32_t rows, double seconds);
  /// `shared`: somebody decodes beside, who should not wait for much longer than a tenth of a second.
  uint32_t rows(bool shared) const;

 private:
  uint32_t most_;
  double seconds_per_row_ = 0;  // of steps with prompts in them, smoothed; 0: not known yet
};

}  // namespace foundry
