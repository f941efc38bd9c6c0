#include "base/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace foundry {
namespace {

using Candidate = std::pair<float, int32_t>;

bool better(const Candidate& a, const Candidate& b) {
  return a.first > b.first || (a.first == b.first && a.second < b.second);
}

/// How many of the candidates pass: the first ones, once this has ordered them.
size_t filter(std::vector<Candidate>& candidates, const SampleParams& p, double best) {
  const auto begin = candidates.begin();
  size_t n = candidates.size();
  if (p.top_k != 0 && p.top_k < n) {
    n = p.top_k;
    std::nth_element(begin, begin + static_cast<std::ptrdiff_t>(n - 1), candidates.end(), better);
  }
  if (p.top_p < 1) {
    const auto end = begin + static_cast<std::ptrdiff_t>(n);
    std::sort(begin, end, better);
    double total = 0, sum = 0;
    for (auto one = begin; one != end; ++one) total += std::exp(one->first - best);
    size_t keep = 0;
    while (keep < n && sum < static_cast<double>(p.top_p) * total) sum += std::exp(candidates[keep++].first - best);
    n = std::max<size_t>(keep, 1);
  }
  if (p.min_p > 0) {
    const double least = best + std::log(static_cast<double>(p.min_p));
    const auto end = std::partition(begin, begin + static_cast<std::ptrdiff_t>(n),
                                    [least](const Candidate& one) { return one.first >= least; });
    n = std::max<size_t>(static_cast<size_t>(end - begin), 1);
  }
  return n;
}

}  // namespace

bool drawable(std::span<const float> logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  bool below = true, any = false;
  for (const float x : logits) {
    below &= x < kInfinity;  // false for a NaN
    any |= x > -kInfinity;
  }
  return below && any;
}

int32_t sample(std::span<const float> logits, const SampleParams& p, std::vector<Candidate>& room) {
  if (!drawable(logits)) return -1;
  const auto most = std::max_element(logits.begin(), logits.end());
  if (p.temperature == 0 || p.top_k == 1) return static_cast<int32_t>(most - logits.begin());
  const double best = *most;
  room.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) room[i] = {logits[i], static_cast<int32_t>(i)};
  const size_t n = filter(room, p, best);
  const auto end = room.begin() + static_cast<std::ptrdiff_t>(n);
  const bool in_order = n == room.size() && p.top_p >= 1 && p.min_p <= 0;  // nobody has moved them
  if (!in_order)
    std::sort(room.begin(), end, [](const Candidate& a, const Candidate& b) { return a.second < b.second; });
  const auto weight = [&](const Candidate& one) { return std::exp((one.first - best) / p.temperature); };
  double total = 0;
  for (auto one = room.begin(); one != end; ++one) total += weight(*one);
  double left = p.uniform * total;
  for (auto one = room.begin(); one != end; ++one)
    if ((left -= weight(*one)) < 0) return one->second;
  return std::prev(end)->second;
}

}  // namespace foundry
