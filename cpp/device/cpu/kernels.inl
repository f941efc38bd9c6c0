// The kernels, over the sixteen-lane vocabulary of whichever simd_*.h was included before. One translation unit for
// each instruction set; no std templates here.
#include "device/cpu/kernels.h"
#include "formats/codes.h"
#include "formats/dtype.h"
#include "quant_blocks.h"

namespace foundry::cpu::FOUNDRY_ISA {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();
constexpr float kLeastScaled = 1e-30f;  // blocks below it count as zero: the inverse of their scale would overflow

/// e^x, the only one there is; relative error below 2e-7. Range reduction by ln 2 in two parts, then the polynomial of
/// degree 5 of Cephes' expf (Moshier). Below -87.3 it stays at e^-87.3; NaN gives that too.
inline F16 exp(F16 x) {
  x = min(max(x, set1(-87.3f)), set1(88.0f));
  const F16 n = round(mul(x, set1(1.44269504088896341f)));
  F16 r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  F16 p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(mul(p, r), r, add(r, set1(1.0f)));
  return scale2(p, n);
}

inline float exp(float x) {
  float lanes[16];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

/// Lanes in one fixed tree.
inline float sum(F16 a) {
  float x[16];
  store(x, a);
  for (uint32_t width = 8; width != 0; width /= 2)
    for (uint32_t i = 0; i < width; ++i) x[i] += x[i + width];
  return x[0];
}

inline float largest(F16 a) {
  float x[16];
  store(x, a);
  float most = x[0];
  for (const float v : x) most = v > most ? v : most;
  return most;
}

/// tanh to 4 units in the last place: a quotient of polynomials, with the coefficients of Eigen's ptanh_float. NaN
/// stays.
inline F16 tanh(F16 a) {
  const F16 x = max(min(a, set1(7.90531110763549805f)), set1(-7.90531110763549805f));
  const F16 s = mul(x, x);
  F16 p = set1(-2.76076847742355e-16f);
  p = fma(p, s, set1(2.00018790482477e-13f));
  p = fma(p, s, set1(-8.60467152213735e-11f));
  p = fma(p, s, set1(5.12229709037114e-08f));
  p = fma(p, s, set1(1.48572235717979e-05f));
  p = fma(p, s, set1(6.37261928875436e-04f));
  p = fma(p, s, set1(4.89352455891786e-03f));
  F16 q = set1(1.19825839466702e-06f);
  q = fma(q, s, set1(1.18534705686654e-04f));
  q = fma(q, s, set1(2.26843463243900e-03f));
  q = fma(q, s, set1(4.89352518554385e-03f));
  return div(mul(p, x), q);
}

/// cap * tanh(x / cap); NaN for what is not finite, so that it is not hidden.
inline F16 soft_cap(F16 x, float cap) { return fma(set1(cap), tanh(div(x, set1(cap))), sub(x, x)); }

/// See QuantRows. Ties to even; n is a multiple of 32.
void quantise(const float* x, uint32_t n, int8_t* q, float* scales, int32_t* sums) {
  for (uint32_t b = 0; b < n / kBlock; ++b) {
    const F16 low = load(x + b * kBlock), high = load(x + b * kBlock + 16);
    const float nothing = sum(fma(low, zero(), mul(high, zero())));  // NaN where a value is not finite
    if (nothing != 0) {
      __builtin_memset(q + b * kQuantBytes, 0, kQuantBytes);
      scales[b] = nothing;
      sums[2 * b] = sums[2 * b + 1] = 0;
      continue;
    }
    const float most = largest(max(abs(low), abs(high)));
    const F16 inverse = set1(most < kLeastScaled ? 0.0f : kQuantMax / most);
    const I16 half[2] = {to_int(mul(low, inverse)), to_int(mul(high, inverse))};
    for (uint32_t i = 0; i < 2; ++i) {
      const I16 coarse = shift_right7(iadd(half[i], iset1(64)));
      store_i8(q + b * kQuantBytes + 16 * i, coarse);
      store_i8(q + b * kQuantBytes + kBlock + 16 * i, isub(half[i], shift_left7(coarse)));
    }
    scales[b] = most / kQuantMax;
    for (uint32_t i = 0; i < 2; ++i) sums[2 * b + i] = sum(half[i]);
  }
}

#include "device/cpu/formats/formats.inl"
//
#include "device/cpu/attention.inl"
#include "device/cpu/panels.inl"
//
#include "device/cpu/linear.inl"

void append(const float* x, uint32_t n, uint32_t type, std::byte* to, uint64_t stride) {
  if (type == static_cast<uint32_t>(DType::f32)) {
    for (uint32_t i = 0; i < n; ++i) reinterpret_cast<float*>(to)[i * stride] = x[i];
    return;
  }
  auto* halves = reinterpret_cast<uint16_t*>(to);
  for (uint32_t i = 0; i < n; i += 16) {
    const uint32_t count = n - i < 16 ? n - i : 16;
    uint16_t packed[16];
    if (type == static_cast<uint32_t>(DType::f16)) {
      to_f16(load(x + i, count), packed);
    } else {
      for (uint32_t j = 0; j < count; ++j) {  // to nearest, ties to even; NaN stays NaN
        uint32_t bits;
        __builtin_memcpy(&bits, x + i + j, 4);
        packed[j] = static_cast<uint16_t>(
            (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
      }
    }
    for (uint32_t j = 0; j < count; ++j) halves[(i + j) * stride] = packed[j];
  }
}

void rms_norm(const float* x, const float* weight, float* y, uint32_t n, float eps) {
  F16 squares = zero();
  for (uint32_t i = 0; i < n; i += 16) {
    const F16 a = load(x + i, n - i < 16 ? n - i : 16);
    squares = fma(a, a, squares);
  }
  const F16 scale = set1(1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(n) + eps));
  for (uint32_t i = 0; i < n; i += 16) {
    const uint32_t count = n - i < 16 ? n - i : 16;
    store(y + i, mul(mul(load(x + i, count), scale), load(weight + i, count)), count);
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float* y, uint32_t n, float eps) {
  F16 total = zero(), squares = zero();
  for (uint32_t i = 0; i < n; i += 16) total = add(total, load(x + i, n - i < 16 ? n - i : 16));
  const F16 mean = set1(sum(total) / static_cast<float>(n));
  for (uint32_t i = 0; i < n; i += 16) {
    const uint32_t count = n - i < 16 ? n - i : 16;
    const F16 off = select(0, count, sub(load(x + i, count), mean), zero());
    squares = fma(off, off, squares);
  }
  const F16 scale = set1(1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(n) + eps));
  for (uint32_t i = 0; i < n; i += 16) {
    const uint32_t count = n - i < 16 ? n - i : 16;
    const F16 shift = bias == nullptr ? zero() : load(bias + i, count);
    store(y + i, fma(mul(sub(load(x + i, count), mean), scale), load(weight + i, count), shift), count);
  }
}

/// gate / (1 + e^-u(gate)) * up
template <class U>
inline void gated(const float* gate, const float* up, float* y, uint64_t n, U u) {
  for (uint64_t i = 0; i < n; i += 16) {
    const auto count = static_cast<uint32_t>(n - i < 16 ? n - i : 16);
    const F16 g = load(gate + i, count);
    const F16 open = div(g, add(set1(1.0f), exp(sub(zero(), u(g)))));
    store(y + i, mul(open, load(up + i, count)), count);
  }
}

void swiglu(const float* gate, const float* up, float* y, uint64_t n) {
  gated(gate, up, y, n, [](F16 g) { return g; });
}

/// u = 2 sqrt(2 / pi) (g + 0.044715 g^3)
inline F16 gelu_exponent(F16 g) {
  return mul(mul(g, set1(1.5957691216057308f)), fma(mul(g, g), set1(0.044715f), set1(1.0f)));
}

void geglu(const float* gate, const float* up, float* y, uint64_t n) { gated(gate, up, y, n, gelu_exponent); }

/// x / (1 + e^-gate); NaN where the gate is not finite.
void sigmoid_gate(const float* x, const float* gate, float* y, uint64_t n) {
  for (uint64_t i = 0; i < n; i += 16) {
    const auto count = static_cast<uint32_t>(n - i < 16 ? n - i : 16);
    const F16 g = load(gate + i, count);
    const F16 open = add(set1(1.0f), exp(sub(zero(), g)));
    store(y + i, div(fma(g, zero(), load(x + i, count)), open), count);
  }
}

#include "device/cpu/gated_delta.inl"

void gelu(const float* x, float* y, uint64_t n) {
  for (uint64_t i = 0; i < n; i += 16) {
    const auto count = static_cast<uint32_t>(n - i < 16 ? n - i : 16);
    const F16 g = load(x + i, count);
    store(y + i, div(g, add(set1(1.0f), exp(sub(zero(), gelu_exponent(g))))), count);
  }
}

void scale(const float* x, float* y, uint64_t n, float scale, float cap) {
  for (uint64_t i = 0; i < n; i += 16) {
    const auto count = static_cast<uint32_t>(n - i < 16 ? n - i : 16);
    const F16 scaled = mul(load(x + i, count), set1(scale));
    store(y + i, cap == 0 ? scaled : soft_cap(scaled, cap), count);
  }
}

void add(const float* a, const float* b, float* y, uint64_t n) {
  for (uint64_t i = 0; i < n; i += 16) {
    const auto count = static_cast<uint32_t>(n - i < 16 ? n - i : 16);
    store(y + i, add(load(a + i, count), load(b + i, count)), count);
  }
}

constexpr CpuKernels kTable = {kIsaName,     panel_bytes, pack,   quantise, linear,     dots_keys, attention,
                               merge,        finish,      append, rms_norm, layer_norm, swiglu,    geglu,
                               sigmoid_gate, gated_delta, gelu,   scale,    add};

}  // namespace
}  // namespace foundry::cpu::FOUNDRY_ISA
