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

double uniform(uint64_t seed, uint64_t position) {
  return static_cast<double>(mix(mix(seed) ^ position) >> 11) * 0x1.0p-53;  // [0, 1)
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

int32_t Sampler::pick(std::span<const float> logits, const Sampling& s, uint64_t position) {
  if (s.temperature == 0 || s.top_k == 1)
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());

  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates_[i] = {logits[i], static_cast<int32_t>(i)};
  const auto better = [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  };
  size_t n = candidates_.size();
  const auto begin = candidates_.begin();
  if (s.top_k != 0 && s.top_k < n) {
    n = s.top_k;
    std::nth_element(begin, begin + static_cast<std::ptrdiff_t>(n - 1), candidates_.end(), better);
  }
  std::sort(begin, begin + static_cast<std::ptrdiff_t>(n), better);

  const double best = candidates_[0].first;
  if (s.top_p < 1) {
    double total = 0;
    for (size_t i = 0; i < n; ++i) total += std::exp(candidates_[i].first - best);
    double sum = 0;
    size_t keep = 0;
    while (keep < n && sum < s.top_p * total) sum += std::exp(candidates_[keep++].first - best);
    n = std::max<size_t>(keep, 1);
  }
  if (s.min_p > 0) {
    const double floor = best + std::log(s.min_p);
    while (n > 1 && candidates_[n - 1].first < floor) --n;
  }
  double total = 0;
  for (size_t i = 0; i < n; ++i) total += std::exp((candidates_[i].first - best) / s.temperature);
  double target = uniform(s.seed, position) * total;
  for (size_t i = 0; i < n; ++i) {
    target -= std::exp((candidates_[i].first - best) / s.temperature);
    if (target < 0) return candidates_[i].second;
  }
  return candidates_[n - 1].second;
}

float log_probability(std::span<const float> logits, int32_t token) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - best));
  return static_cast<float>(logits[static_cast<size_t>(token)] - best - std::log(sum));
}

}  // namespace foundry
