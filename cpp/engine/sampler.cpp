#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"

namespace foundry {
namespace {

/// SplitMix64's finaliser (Steele, Lea, Flood 2014), applied to both keys in turn.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// In the middles of 2^23 equal parts of 0 .. 1: exact in f32.
float uniform(uint64_t seed, uint64_t position) {
  return (static_cast<float>(mix(mix(seed) ^ position) >> 41) + 0.5f) * 0x1.0p-23f;
}

}  // namespace

void check(const Sampling& s) {
  if (!(s.temperature >= 0) || !std::isfinite(s.temperature))
    throw ValueError("temperature: expected a number from 0, found " + std::to_string(s.temperature));
  if (!(s.top_p > 0 && s.top_p <= 1))
    throw ValueError("top_p: expected above 0 and at most 1, found " + std::to_string(s.top_p));
  if (!(s.min_p >= 0 && s.min_p <= 1))
    throw ValueError("min_p: expected from 0 to 1, found " + std::to_string(s.min_p));
}

SampleParams params_at(const Sampling& s, uint64_t position) {
  return {s.temperature, s.top_k, s.top_p, s.min_p, uniform(s.seed, position)};
}

float log_probability(std::span<const float> logits, int32_t token) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - best));
  return static_cast<float>(logits[static_cast<size_t>(token)] - best - std::log(sum));
}

}  // namespace foundry
