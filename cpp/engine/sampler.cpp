#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
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

struct Total {
  float best;
  double log_sum;  // of exp(logit - best)
};
Total total_of(std::span<const float> logits) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - best));
  return {best, std::log(sum)};
}

void expect(bool right, const char* name, const char* range, float found) {
  if (!right) throw ValueError(std::string(name) + ": expected " + range + ", found " + std::to_string(found));
}

}  // namespace

void check(const Sampling& s, uint32_t vocab_size) {
  const auto within = [](float x, float most) { return x >= -most && x <= most; };
  expect(s.temperature >= 0 && std::isfinite(s.temperature), "temperature", "a number from 0", s.temperature);
  expect(s.top_p > 0 && s.top_p <= 1, "top_p", "above 0 and at most 1", s.top_p);
  expect(s.min_p >= 0 && s.min_p <= 1, "min_p", "from 0 to 1", s.min_p);
  expect(s.repetition_penalty > 0 && std::isfinite(s.repetition_penalty), "repetition_penalty", "a number above 0",
         s.repetition_penalty);
  expect(within(s.presence_penalty, 100), "presence_penalty", "from -100 to 100", s.presence_penalty);
  expect(within(s.frequency_penalty, 100), "frequency_penalty", "from -100 to 100", s.frequency_penalty);
  expect(s.dry.multiplier >= 0 && std::isfinite(s.dry.multiplier), "dry_multiplier", "a number from 0",
         s.dry.multiplier);
  expect(s.dry.base >= 1 && std::isfinite(s.dry.base), "dry_base", "a number from 1", s.dry.base);
  expect(s.top_n_sigma >= 0 && std::isfinite(s.top_n_sigma), "top_n_sigma", "a number from 0", s.top_n_sigma);
  for (const auto& [token, bias] : s.logit_bias) {
    if (token < 0 || static_cast<uint32_t>(token) >= vocab_size)
      throw ValueError("logit_bias: expected ids from 0 to " + std::to_string(vocab_size - 1) + ", found " +
                       std::to_string(token));
    expect(bias < std::numeric_limits<float>::infinity(), "logit_bias", "finite numbers or -infinity", bias);
  }
}

SampleParams params_at(const Sampling& s, uint64_t position) {
  return {s.temperature, s.top_k, s.top_p, s.min_p, uniform(s.seed, position)};
}

float log_probability(std::span<const float> logits, int32_t token) {
  const auto [best, log_sum] = total_of(logits);
  return static_cast<float>(logits[static_cast<size_t>(token)] - best - log_sum);
}

std::vector<std::pair<int32_t, float>> most_likely(std::span<const float> logits, uint32_t n) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto at = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  const auto end = ids.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(n, ids.size()));
  std::partial_sort(ids.begin(), end, ids.end(),
                    [&](int32_t a, int32_t b) { return at(a) > at(b) || (at(a) == at(b) && a < b); });
  const auto [best, log_sum] = total_of(logits);
  std::vector<std::pair<int32_t, float>> found;
  for (auto id = ids.begin(); id != end; ++id) found.emplace_back(*id, static_cast<float>(at(*id) - best - log_sum));
  return found;
}

}  // namespace foundry
