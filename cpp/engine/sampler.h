// How a caller wants tokens picked. Draws come from a counter-based generator keyed by (seed, position): a replay is exact, whatever
// happened in between.
#pragma once
#include <cstdint>
#include <span>

#include "params.h"

namespace foundry {

/// As base/sample.h has them.
struct Sampling {
  float temperature = 0;
  uint32_t top_k = 0;  // 0: all
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
};

/// Throws ValueError on a parameter outside its range.
void check(const Sampling& sampling);

/// For the token that will take this position.
SampleParams params_at(const Sampling& sampling, uint64_t position);

/// log p(token) under the softmax of logits, summed in double.
float log_probability(std::span<const float> logits, int32_t token);

}  // namespace foundry
