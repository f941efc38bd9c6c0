// The gates of a feed-forward layer: x / (1 + exp(-exponent(x))). And the soft cap of scores and logits.
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

/// cap * tanh(x / cap), the tanh as the CPU's kernels have it; NaN for what is not finite, so that it is not hidden.
METAL_FUNC float soft_cap(float x, float cap) {
  const float u = min(max(x / cap, -7.90531110763549805f), 7.90531110763549805f), s = u * u;
  float p = -2.76076847742355e-16f;
  p = fma(p, s, 2.00018790482477e-13f);
  p = fma(p, s, -8.60467152213735e-11f);
  p = fma(p, s, 5.12229709037114e-08f);
  p = fma(p, s, 1.48572235717979e-05f);
  p = fma(p, s, 6.37261928875436e-04f);
  p = fma(p, s, 4.89352455891786e-03f);
  float q = 1.19825839466702e-06f;
  q = fma(q, s, 1.18534705686654e-04f);
  q = fma(q, s, 2.26843463243900e-03f);
  q = fma(q, s, 4.89352518554385e-03f);
  return fma(cap, p * u / q, x - x);
}
