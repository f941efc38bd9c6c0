#include "engine/step_plan.h"

#include <algorithm>

namespace foundry {
namespace {
constexpr uint32_t kLeastRows = 8;       // of a chunk: fewer cost nearly as much
constexpr double kSharedSeconds = 0.08;  // of a step that a decode may have to wait for
constexpr double kSmooth = 0.3;          // share of the newest step
}  // namespace

std::vector<uint32_t> plan_step(std::span<const uint64_t> rows_left, uint32_t most_rows, uint32_t prompt_rows) {
  std::vector<uint32_t> rows(rows_left.size(), 0);
  uint32_t used = 0;
  for (size_t i = 0; i < rows_left.size() && used < most_rows; ++i)
    if (rows_left[i] == 1) rows[i] = 1, ++used;
  uint32_t left = std::min(prompt_rows, most_rows - used);
  for (size_t i = 0; i < rows_left.size() && left != 0; ++i) {
    if (rows_left[i] <= 1) continue;
    rows[i] = static_cast<uint32_t>(std::min<uint64_t>(rows_left[i], left));
    left -= rows[i];
  }
  return rows;
}

void ChunkSize::learn(uint32_t rows, double seconds) {
  if (rows < kLeastRows / 2) return;  // as slow as its weights are read, not as its rows are computed
  const double now = seconds / rows;
  seconds_per_row_ = seconds_per_row_ == 0 ? now : (1 - kSmooth) * seconds_per_row_ + kSmooth * now;
}

uint32_t ChunkSize::rows(bool shared) const {
  if (!shared) return most_;
  if (seconds_per_row_ == 0) return std::min(most_, kLeastRows);
  const double fit = kSharedSeconds / seconds_per_row_;
  const uint32_t rows = fit >= most_ ? most_ : static_cast<uint32_t>(fit) / kLeastRows * kLeastRows;
  return std::clamp(rows, std::min(most_, kLeastRows), most_);
}

}  // namespace foundry
