// Picks a token from logits: the one definition, in double; GPUs follow it (metal/sample.metal).
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "params.h"

namespace foundry {

/// A token can be drawn from these: no NaN, no +infinity, and not all of them -infinity, which is a probability of 0.
bool drawable(std::span<const float> logits);

/// -1 where the logits are not drawable. Filters in this order: top_k, top_p, min_p, then temperature (llama.cpp's and
/// mlx-lm's habit). temperature 0: the most likely. The lowest id wins ties. The draw counts probabilities in the order
/// of ids up to params.uniform. `room` is kept between calls.
int32_t sample(std::span<const float> logits, const SampleParams& params, std::vector<std::pair<float, int32_t>>& room);

}  // namespace foundry
