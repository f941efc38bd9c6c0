// How a caller wants tokens picked. Draws come from a counter-based generator keyed by (seed, position): a replay is exact, whatever
// happened in between.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/dry.h"
#include "params.h"

namespace foundry {

/// Filters as base/sample.h has them; what comes before them as logit_edits.h has it.
struct Sampling {
  float temperature = 0;
  uint32_t top_k = 0;  // 0: all
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
  float repetition_penalty =
      1;  // divides positive logits of tokens in history or answer, multiplies others (Keskar et al. 2019)
  float presence_penalty = 0;   // taken from logits of tokens in the answer
  float frequency_penalty = 0;  // the same, for each time that it is there
  DrySampling dry{};
  float top_n_sigma = 0;                                // 0: off
  std::vector<std::pair<int32_t, float>> logit_bias{};  // added; -infinity forbids a token
};

/// Throws ValueError on a parameter outside its range.
void check(const Sampling& sampling, uint32_t vocab_size);

/// For the token that will take this position.
SampleParams params_at(const Sampling& sampling, uint64_t position);

/// log p(token) under the softmax of logits, summed in double.
float log_probability(std::span<const float> logits, int32_t token);

/// The n most likely tokens, the first first; the lower id where two are alike. In nats.
std::vector<std::pair<int32_t, float>> most_likely(std::span<const float> logits, uint32_t n);

}  // namespace foundry
