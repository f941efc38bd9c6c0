#include "device/gpu/rope_turns.h"

#include <cmath>

namespace foundry {

const std::vector<float>& RopeTurns::of(const RopeParams& p, const float* factors) {
  std::vector<float>& to = known_[{p.rot_dim, p.base, p.scale}];
  if (!to.empty()) return to;
  const uint32_t n = p.rot_dim / 2;
  to.resize(uint64_t{2} * n);
  for (uint32_t i = 0; i < n; ++i) {
    const double turns = static_cast<double>(p.scale) * std::pow(static_cast<double>(p.base), -2.0 * i / p.rot_dim) /
                         (factors == nullptr ? 1.0 : factors[i]) / (2 * std::acos(-1.0));
    to[2 * i] = static_cast<float>(turns);
    to[2 * i + 1] = static_cast<float>(turns - static_cast<double>(to[2 * i]));
  }
  return to;
}

}  // namespace foundry
