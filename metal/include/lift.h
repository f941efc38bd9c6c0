// Powers of two that bring values to where halves are dense.
#pragma once

/// The one that brings `most` to 2^kTo and above, below twice that, or as near as such go, and the one back. What is not
/// finite stays so.
struct Lift {
  float up, down;
};
template <uint kTo>
METAL_FUNC Lift lift_to(float most) {
  const uint exponent = max(as_type<uint>(most) >> 23 & 255u, kTo + 1u);  // biased, and so that neither is subnormal
  return Lift{as_type<float>((127u + kTo + 127u - exponent) << 23), as_type<float>((exponent - kTo) << 23)};
}
METAL_FUNC Lift lift_of(float most) { return lift_to<14>(most); }
