// Top-k routing (Shazeer et al., arXiv:1701.06538), and with a bias of the choice and groups (DeepSeek-V3,
// arXiv:2412.19437, section 2.1.2). Of equals the lower number is chosen.
#include "device/route.h"

#include <cmath>
#include <limits>

namespace foundry {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// A row's router: scores as they came, and what they become.
class Row {
 public:
  Row(const RouteParams& p, const float* scores, const float* bias) : p_(p), scores_(scores), bias_(bias) {
    double most = kMinusInfinity;
    for (u32 e = 0; e < p.n_experts; ++e) {
      most = scores[e] > most ? scores[e] : most;
      spoilt_ += scores[e] - scores[e];  // NaN where one is not finite
    }
    most_ = most;
    if (is(RouteGate::softmax))
      for (u32 e = 0; e < p.n_experts; ++e) sum_ += std::exp(scores[e] - most_);
  }

  /// What the gate makes of an expert's score; NaN in a spoilt row.
  double gated(u32 e) const {
    const double score = scores_[e];
    return spoilt_ + (is(RouteGate::sigmoid) ? 1 / (1 + std::exp(-score)) : std::exp(score - most_) / sum_);
  }
  /// What is compared. Without a bias or groups the score itself: gates keep the order, and would round some to equals.
  double rank(u32 e) const {
    const bool as_it_is = bias_ == nullptr && p_.n_groups == 1;
    const double found = as_it_is ? scores_[e] : gated(e) + (bias_ == nullptr ? 0.0 : bias_[e]);
    return std::isnan(found) ? kMinusInfinity : found;
  }
  double group_rank(u32 group) const {
    const u32 each = p_.n_experts / p_.n_groups;
    double first = kMinusInfinity, second = kMinusInfinity;
    for (u32 e = group * each; e < (group + 1) * each; ++e) {
      const double found = rank(e);
      if (found > first)
        second = first, first = found;
      else if (found > second)
        second = found;
    }
    return each == 1 ? first : first + second;
  }

 private:
  bool is(RouteGate gate) const { return p_.gate == static_cast<u32>(gate); }
  const RouteParams& p_;
  const float* scores_;
  const float* bias_;
  double most_ = 0, sum_ = 0, spoilt_ = 0;
};

/// The n best of all that `may` be chosen, in order, to `take(i, which)`: highest rank first, then lowest number.
template <class Rank, class May, class Take>
void best(u32 n, u32 all, const Rank& rank, const May& may, const Take& take) {
  double last = 0;
  u32 last_at = 0;
  for (u32 i = 0; i < n; ++i) {
    double most = 0;
    u32 most_at = all;  // none yet
    for (u32 at = 0; at < all; ++at) {
      if (!may(at)) continue;
      const double found = rank(at);
      const bool behind = i == 0 || found < last || (found == last && at > last_at);
      if (behind && (most_at == all || found > most)) most = found, most_at = at;
    }
    take(i, most_at);
    last = most, last_at = most_at;
  }
}

}  // namespace

void route(const RouteArgs& args, uint64_t begin, uint64_t end) {
  const RouteParams& p = args.p;
  const auto* bias = args.bias == nullptr ? nullptr : reinterpret_cast<const float*>(args.bias->mapped);
  for (u64 r = begin; r < end; ++r) {
    const Row row(p, args.scores.as<float>() + r * p.n_experts, bias);
    auto* chosen = args.chosen.as<int32_t>() + r * p.n_used;
    auto* weights = args.weights.as<float>() + r * p.n_used;
    const u32 each = p.n_experts / p.n_groups;
    u64 groups = 0;  // a bit for each that may be chosen from
    static_assert(kMostExpertGroups <= 64);
    best(
        p.n_groups_used, p.n_groups, [&](u32 group) { return p.n_groups == 1 ? 0.0 : row.group_rank(group); },
        [](u32) { return true; }, [&](u32, u32 group) { groups |= u64{1} << group; });
    best(
        p.n_used, p.n_experts, [&](u32 e) { return row.rank(e); },
        [&](u32 e) { return (groups >> (e / each) & 1) != 0; },
        [&](u32 i, u32 e) { chosen[i] = static_cast<int32_t>(e); });
    double sum = 1e-20;  // of gates that are all shut: DeepSeek's
    for (u32 i = 0; i < p.n_used; ++i) sum += row.gated(static_cast<u32>(chosen[i]));
    for (u32 i = 0; i < p.n_used; ++i) {
      const double weight = row.gated(static_cast<u32>(chosen[i]));
      weights[i] = static_cast<float>((p.normalise != 0 ? weight / sum : weight) * static_cast<double>(p.scale));
    }
  }
}

}  // namespace foundry
