#include "engine/logit_edits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"

namespace foundry {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

/// Top-n-sigma (Tang et al. 2024, arXiv:2411.07641): what is more than n standard deviations below the best is cut. Logits of -infinity
/// take no part in the deviation.
void cut_below(std::span<float> logits, float n) {
  double sum = 0, squares = 0, count = 0;
  float best = kNever;
  for (const float x : logits) {
    if (x == kNever) continue;
    best = std::max(best, x);
    sum += x, squares += static_cast<double>(x) * x, ++count;
  }
  if (count == 0) return;
  const double mean = sum / count, deviation = std::sqrt(std::max(0.0, squares / count - mean * mean));
  const double least = best - n * deviation;
  for (float& x : logits)
    if (x < least) x = kNever;
}

}  // namespace

LogitEdits::LogitEdits(const Sampling& sampling, std::span<const int32_t> history)
    : sampling_(sampling), dry_(sampling.dry, history) {
  penalises_ = sampling.repetition_penalty != 1 || sampling.presence_penalty != 0 || sampling.frequency_penalty != 0;
  any_ = penalises_ || sampling.dry.on() || sampling.top_n_sigma > 0 || !sampling.logit_bias.empty();
  if (sampling.repetition_penalty != 1)
    for (const int32_t token : history) seen_.try_emplace(token);
}

void LogitEdits::answered(int32_t token) {
  if (penalises_) ++seen_[token].in_answer;
  dry_.answered(token);
}

void LogitEdits::apply(std::span<float> logits, std::span<const uint32_t> mask) {
  for (const auto& [token, bias] : sampling_.logit_bias) logits[static_cast<size_t>(token)] += bias;
  for (const auto& [token, seen] : seen_) {
    float& x = logits[static_cast<size_t>(token)];
    x = x > 0 ? x / sampling_.repetition_penalty : x * sampling_.repetition_penalty;
    if (seen.in_answer != 0)
      x -= sampling_.presence_penalty + sampling_.frequency_penalty * static_cast<float>(seen.in_answer);
  }
  dry_.apply(logits);
  if (!mask.empty()) {
    bool allowed = false;
    for (size_t i = 0; i < logits.size(); ++i) {
      if ((mask[i / 32] >> (i % 32) & 1) != 0)
        allowed |= logits[i] > kNever;
      else
        logits[i] = kNever;
    }
    if (!allowed) throw ValueError("the constraint allows no token that the model could give here");
  }
  if (sampling_.top_n_sigma > 0) cut_below(logits, sampling_.top_n_sigma);
}

}  // namespace foundry
