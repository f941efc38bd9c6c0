// The gates of a feed-forward layer: x / (1 + exp(-exponent(x))).
#pragma once

struct Silu {
  static METAL_FUNC float exponent(float g) { return g; }
};
struct Gelu {  // by tanh: 2 sqrt(2 / pi) (g + 0.044715 g^3)
  static METAL_FUNC float exponent(float g) { return g * 1.5957691216057308f * fma(g * g, 0.044715f, 1.0f); }
};

template <class Gate>
METAL_FUNC float gated_by(float g) {
  return g / (1.0f + precise::exp(-Gate::exponent(g)));
}
