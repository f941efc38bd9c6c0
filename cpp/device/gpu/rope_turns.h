// Turns of a position, for each pair of dims of a rope (arXiv:2104.09864), as the kernel reads them
// (elementwise.metal).
#pragma once
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "params.h"

namespace foundry {

/// Worked out once for each kind of rope: rot_dim, base and scale. Of one set of factors, or of none.
class RopeTurns {
 public:
  /// [rot_dim]: for each pair two floats, whose sum has the bits of more than one; at most 1 KiB. `factors`: f32
  /// [rot_dim / 2], or null.
  const std::vector<float>& of(const RopeParams& p, const float* factors);

 private:
  std::map<std::tuple<uint32_t, float, float>, std::vector<float>> known_;
};

}  // namespace foundry
