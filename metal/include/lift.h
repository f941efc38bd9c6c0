// Powers of two that bring values to where halves are dense.
#pragma once

/// The one that brings `most` to 2^14 .. 2^15, or as near as such go, and the one back. What is not finite stays so.
struct Lift {
  float up, down;
};
METAL_FUNC Lift lift_of(float most) {
  const uint exponent = max(as_type<uint>(most) >> 23 & 255u, 15u);  // biased, and so that neither is subnormal
  return Lift{as_type<float>((127u + 14u + 127u - exponent) << 23), as_type<float>((exponent - 14u) << 23)};
}
