// Picks a token from logits. Draws come from a counter-based generator keyed by (seed, position): a replay is exact, whatever
// happened in between.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace foundry {

/// Filters in this order: top_k, top_p, min_p, then temperature (llama.cpp's and mlx-lm's habit). temperature 0: the most likely.
struct Sampling {
  float temperature = 0;
  uint32_t top_k = 0;  // 0: all
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
};

/// Throws ValueError on a parameter outside its range.
void check(const Sampling& sampling);

class Sampler {
 public:
  /// The lowest id wins ties, at temperature 0 and in the order that filters see.
  int32_t pick(std::span<const float> logits, const Sampling& sampling, uint64_t position);

 private:
  std::vector<std::pair<float, int32_t>> candidates_;
};

/// log p(token) under the softmax of logits, summed in double.
float log_probability(std::span<const float> logits, int32_t token);

}  // namespace foundry
