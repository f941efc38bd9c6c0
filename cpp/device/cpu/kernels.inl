// The kernels, over the sixteen-lane vocabulary of whichever simd_*.h was included before. One translation unit for each
// instruction set; no std templates here.
#include "device/cpu/kernels.h"

namespace foundry::cpu::FOUNDRY_ISA {
namespace {

enum : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBf16 = 30 };  // DType

constexpr float kMinusInfinity = -__builtin_inff();
constexpr float kLeastScaled = 1e-30f;  // blocks below it count as zero: the inverse of their scale would overflow

/// e^x, the only one there is; relative error below 2e-7. Range reduction by ln 2 in two parts, then the polynomial of degree 5
/// of Cephes' expf (Moshier). Below -87.3 it stays at e^-87.3; NaN gives that too.
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

template <uint32_t T>
constexpr uint32_t element_bytes() {
  return T == kF32 ? 4 : 2;
}

template <uint32_t T>
inline F16 load_as(const std::byte* p) {
  if constexpr (T == kF32) return load(reinterpret_cast<const float*>(p));
  if constexpr (T == kF16) return load_f16(reinterpret_cast<const uint16_t*>(p));
  if constexpr (T == kBf16) return load_bf16(reinterpret_cast<const uint16_t*>(p));
}

template <uint32_t T>
inline F16 load_as(const std::byte* p, uint32_t n) {
  if (n == 16) return load_as<T>(p);
  if constexpr (T == kF32) return load(reinterpret_cast<const float*>(p), n);
  if constexpr (T == kF16) return load_f16(reinterpret_cast<const uint16_t*>(p), n);
  if constexpr (T == kBf16) return load_bf16(reinterpret_cast<const uint16_t*>(p), n);
}

/// See QuantRows. Ties to even; n is a multiple of 32.
void quantise(const float* x, uint32_t n, int8_t* q, float* scales, int32_t* sums) {
  for (uint32_t b = 0; b < n / kBlock; ++b) {
    const F16 low = load(x + b * kBlock), high = load(x + b * kBlock + 16);
    const float nothing = sum(fma(low, zero(), mul(high, zero())));  // NaN where a value is not finite
    if (nothing != 0) {
      __builtin_memset(q + b * kQuantBytes, 0, kQuantBytes);
      scales[b] = nothing;
      sums[b] = 0;
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
    sums[b] = sum(half[0]) + sum(half[1]);
  }
}

/// A packed block of a panel: scales [16] f16, (Q4_1: minima [16] f16,) then 64-byte groups of four k for each output.
template <uint32_t T>
constexpr uint32_t packed_bytes() {
  return T == kQ4_0 ? 32 + 256 : T == kQ4_1 ? 64 + 256 : 32 + 512;
}

template <uint32_t T, uint32_t R>
inline void quant_tile(const LinearPanel& a, uint32_t row, F16* acc) {
  const uint32_t n_blocks = a.in_features / kBlock;
  const std::byte* w = a.panel;
  for (uint32_t b = 0; b < n_blocks; ++b, w += packed_bytes<T>()) {
    const F16 d = load_f16(reinterpret_cast<const uint16_t*>(w));
    const std::byte* groups = w + (T == kQ4_1 ? 64 : 32);
    Bytes k[8];
    for (uint32_t j = 0; j < (T == kQ8_0 ? 8 : 4); ++j) {
      k[j] = load_bytes(groups + 64 * j);
      if constexpr (T != kQ8_0) {
        k[4 + j] = high_nibbles(k[j]);
        k[j] = low_nibbles(k[j]);
      }
    }
    for (uint32_t r = 0; r < R; ++r) {
      const uint64_t at = uint64_t{row + r} * n_blocks + b;
      int32_t q[16];  // four k each: eight of the coarse part, eight of the fine
      __builtin_memcpy(q, a.quant.q + at * kQuantBytes, sizeof q);
      const int32_t q_sum = a.quant.sums[at];
      const float scale = a.quant.scales[at];
      I16 coarse = izero();
      I16 fine = T == kQ4_0 ? iset1(-8 * q_sum) : T == kQ8_0 ? iset1(-kQ8Offset * q_sum) : izero();
      for (uint32_t j = 0; j < 8; ++j) {
        coarse = T == kQ8_0 ? dot_q8(coarse, k[j], q[j]) : dot_nibbles(coarse, k[j], q[j]);
        fine = T == kQ8_0 ? dot_q8(fine, k[j], q[8 + j]) : dot_nibbles(fine, k[j], q[8 + j]);
      }
      acc[r] = fma(to_float(iadd(shift_left7(coarse), fine)), mul(d, set1(scale)), acc[r]);
      if constexpr (T == kQ4_1)
        acc[r] =
            fma(load_f16(reinterpret_cast<const uint16_t*>(w + 32)), set1(scale * static_cast<float>(q_sum)), acc[r]);
    }
  }
}

template <uint32_t T, uint32_t R>
inline void plain_tile(const LinearPanel& a, uint32_t row, F16* acc) {
  const float* x = a.x + uint64_t{row} * a.in_features;
  for (uint32_t k = 0; k < a.in_features; ++k) {
    const F16 w = load_as<T>(a.panel + uint64_t{k} * 16 * element_bytes<T>());
    for (uint32_t r = 0; r < R; ++r) acc[r] = fma(w, set1(x[uint64_t{r} * a.in_features + k]), acc[r]);
  }
}

template <uint32_t T, uint32_t R>
inline void linear_rows(const LinearPanel& a, uint32_t row) {
  F16 acc[R];
  for (uint32_t r = 0; r < R; ++r) acc[r] = zero();
  if constexpr (T == kQ4_0 || T == kQ4_1 || T == kQ8_0)
    quant_tile<T, R>(a, row, acc);
  else
    plain_tile<T, R>(a, row, acc);
  for (uint32_t r = 0; r < R; ++r) {
    const uint64_t at = (row + r) * a.out_stride;
    F16 y = acc[r];
    if (a.bias != nullptr) y = add(y, load(a.bias, a.n_outputs));
    if (a.residual != nullptr) y = add(y, load(a.residual + at, a.n_outputs));
    store(a.out + at, y, a.n_outputs);
  }
}

template <uint32_t T, uint32_t R = kRowTile>
inline void linear_tiles(const LinearPanel& a, uint32_t row) {
  for (; row + R <= a.n_rows; row += R) linear_rows<T, R>(a, row);
  if constexpr (R > 1) linear_tiles<T, R / 2>(a, row);
}

void linear(const LinearPanel& a) {
  switch (a.type) {
    case kQ4_0:
      return linear_tiles<kQ4_0>(a, 0);
    case kQ4_1:
      return linear_tiles<kQ4_1>(a, 0);
    case kQ8_0:
      return linear_tiles<kQ8_0>(a, 0);
    case kF16:
      return linear_tiles<kF16>(a, 0);
    case kBf16:
      return linear_tiles<kBf16>(a, 0);
    default:
      return linear_tiles<kF32>(a, 0);
  }
}

/// What the queries of a tile see of one segment. Inactive queries (none of it) are left out of `index`.
struct Active {
  uint32_t n = 0;
  uint32_t index[kMaxQueries];
  uint64_t begin = ~uint64_t{0}, end = 0;                // the union
  uint64_t common_begin = 0, common_end = ~uint64_t{0};  // the intersection
};

inline const std::byte* page_part(const AttentionSegment& a, uint64_t position, bool v) {
  const uint64_t page = a.pages[position / a.kv.page_tokens];
  return reinterpret_cast<const std::byte*>(page + a.layer * a.kv.layer_stride_bytes +
                                            a.kv_head * a.kv.head_stride_bytes + (v ? a.kv.k_part_bytes : 0));
}

using Scores = float[kMaxQueries][kSegment];

/// scores[i][t] = q_i . k_t, d ascending; lanes are tokens. Lanes of tokens that no query sees hold anything.
template <uint32_t T, uint32_t N>
inline void dot_keys(const AttentionSegment& a, const Active& active, uint32_t first, Scores& scores) {
  const uint32_t tile = a.kv.tile_tokens, dim = a.kv.head_dim;
  const float* q[N];
  for (uint32_t i = 0; i < N; ++i) q[i] = a.q[active.index[first + i]];
  for (uint64_t t = active.begin / tile * tile; t < active.end; t += tile) {
    const std::byte* keys = page_part(a, t, false) + t % a.kv.page_tokens * dim * element_bytes<T>();
    F16 acc[N];
    for (uint32_t i = 0; i < N; ++i) acc[i] = zero();
    for (uint32_t d = 0; d < dim; ++d) {
      const F16 k = load_as<T>(keys + uint64_t{d} * tile * element_bytes<T>(), tile);
      for (uint32_t i = 0; i < N; ++i) acc[i] = fma(k, set1(q[i][d]), acc[i]);
    }
    for (uint32_t i = 0; i < N; ++i) store(&scores[active.index[first + i]][t - a.first], acc[i], tile);
  }
}

/// scores become exp(score * scale - max); what a query does not see becomes 0.
inline void softmax(const AttentionSegment& a, uint32_t i, Scores& scores, Partial& partial) {
  const auto begin = static_cast<uint32_t>(a.begin[i] - a.first), end = static_cast<uint32_t>(a.end[i] - a.first);
  const F16 nothing = set1(kMinusInfinity), scale = set1(a.scale);
  const uint32_t from = begin / 16 * 16;
  F16 most = nothing;
  for (uint32_t t = from; t < end; t += 16) {
    const F16 s =
        select(t < begin ? begin - t : 0, end - t < 16 ? end - t : 16, mul(load(&scores[i][t]), scale), nothing);
    store(&scores[i][t], s);
    most = max(s, most);
  }
  partial.max = largest(most);
  const F16 shift = set1(partial.max);
  F16 total = zero();
  for (uint32_t t = from; t < end; t += 16) {
    const F16 p =
        select(t < begin ? begin - t : 0, end - t < 16 ? end - t : 16, exp(sub(load(&scores[i][t]), shift)), zero());
    store(&scores[i][t], p);
    total = add(total, p);
  }
  partial.sum = sum(total);
}

/// out_i += p_i[t] v_t for t in begin .. end, ascending; lanes are dims.
template <uint32_t T, uint32_t N>
inline void sum_values(const AttentionSegment& a, const uint32_t* index, uint64_t begin, uint64_t end,
                       const Scores& scores, Partial* partials) {
  const uint32_t dim = a.kv.head_dim;
  for (uint64_t from = begin; from < end;) {
    const uint64_t page_end = (from / a.kv.page_tokens + 1) * a.kv.page_tokens, to = page_end < end ? page_end : end;
    const std::byte* values = page_part(a, from, true) + from % a.kv.page_tokens * dim * element_bytes<T>();
    for (uint32_t d = 0; d < dim; d += 16) {
      const uint32_t n = dim - d < 16 ? dim - d : 16;
      F16 acc[N];
      for (uint32_t i = 0; i < N; ++i) acc[i] = load(partials[index[i]].out + d, n);
      const std::byte* v_at = values + d * element_bytes<T>();
      for (uint64_t t = from; t < to; ++t, v_at += uint64_t{dim} * element_bytes<T>()) {
        const F16 v = load_as<T>(v_at, n);
        for (uint32_t i = 0; i < N; ++i) acc[i] = fma(v, set1(scores[index[i]][t - a.first]), acc[i]);
      }
      for (uint32_t i = 0; i < N; ++i) store(partials[index[i]].out + d, acc[i], n);
    }
    from = to;
  }
}

template <uint32_t K, uint32_t N = kQueryTile>
inline void all_keys(const AttentionSegment& a, const Active& active, uint32_t first, Scores& scores) {
  for (; first + N <= active.n; first += N) dot_keys<K, N>(a, active, first, scores);
  if constexpr (N > 1) all_keys<K, N / 2>(a, active, first, scores);
}

template <uint32_t V, uint32_t N = kQueryTile>
inline void all_values(const AttentionSegment& a, const Active& active, uint32_t first, const Scores& scores,
                       Partial* partials) {
  for (; first + N <= active.n; first += N)
    sum_values<V, N>(a, active.index + first, active.common_begin, active.common_end, scores, partials);
  if constexpr (N > 1) all_values<V, N / 2>(a, active, first, scores, partials);
}

template <uint32_t K, uint32_t V>
void attention_of(const AttentionSegment& a, Partial* partials) {
  Active active;
  for (uint32_t i = 0; i < a.n_queries; ++i) {
    partials[i].seen = a.begin[i] < a.end[i] ? 1 : 0;
    if (partials[i].seen == 0) continue;
    active.index[active.n++] = i;
    active.begin = a.begin[i] < active.begin ? a.begin[i] : active.begin;
    active.end = a.end[i] > active.end ? a.end[i] : active.end;
    active.common_begin = a.begin[i] > active.common_begin ? a.begin[i] : active.common_begin;
    active.common_end = a.end[i] < active.common_end ? a.end[i] : active.common_end;
    for (uint32_t d = 0; d < a.kv.head_dim; ++d) partials[i].out[d] = 0;
  }
  if (active.n == 0) return;
  alignas(64) Scores scores;
  all_keys<K>(a, active, 0, scores);
  for (uint32_t i = 0; i < active.n; ++i) softmax(a, active.index[i], scores, partials[active.index[i]]);

  // What only some queries see comes before and behind what all see: each query's own sum still goes up in position.
  const bool together = active.common_begin < active.common_end;
  for (uint32_t i = 0; i < active.n; ++i) {
    const uint32_t query = active.index[i];
    sum_values<V, 1>(a, &query, a.begin[query], together ? active.common_begin : a.end[query], scores, partials);
  }
  if (!together) return;
  all_values<V>(a, active, 0, scores, partials);
  for (uint32_t i = 0; i < active.n; ++i) {
    const uint32_t query = active.index[i];
    sum_values<V, 1>(a, &query, active.common_end, a.end[query], scores, partials);
  }
}

template <uint32_t K>
void attention_keys(const AttentionSegment& a, Partial* partials) {
  switch (a.kv.v_type) {
    case kF16:
      return attention_of<K, kF16>(a, partials);
    case kBf16:
      return attention_of<K, kBf16>(a, partials);
    default:
      return attention_of<K, kF32>(a, partials);
  }
}

void attention(const AttentionSegment& a, Partial* partials) {
  switch (a.kv.k_type) {
    case kF16:
      return attention_keys<kF16>(a, partials);
    case kBf16:
      return attention_keys<kBf16>(a, partials);
    default:
      return attention_keys<kF32>(a, partials);
  }
}

/// One fixed formula, segments in ascending order.
void merge(Partial& into, const Partial& next, uint32_t head_dim) {
  if (next.seen == 0) return;
  if (into.seen == 0) {
    into.max = next.max;
    into.sum = next.sum;
    into.seen = 1;
    for (uint32_t d = 0; d < head_dim; ++d) into.out[d] = next.out[d];
    return;
  }
  const float most = next.max > into.max ? next.max : into.max;
  const float keep = exp(into.max - most), take = exp(next.max - most);
  into.sum = into.sum * keep + next.sum * take;
  into.max = most;
  for (uint32_t d = 0; d < head_dim; d += 8)
    for (uint32_t i = d; i < d + 8; ++i) into.out[i] = into.out[i] * keep + next.out[i] * take;
}

void finish(const Partial& partial, float* out, uint32_t head_dim) {
  for (uint32_t d = 0; d < head_dim; ++d) out[d] = partial.out[d] / partial.sum;
}

void append(const float* x, uint32_t n, uint32_t type, std::byte* to, uint64_t stride) {
  if (type == kF32) {
    for (uint32_t i = 0; i < n; ++i) reinterpret_cast<float*>(to)[i * stride] = x[i];
    return;
  }
  auto* halves = reinterpret_cast<uint16_t*>(to);
  for (uint32_t i = 0; i < n; i += 16) {
    const uint32_t count = n - i < 16 ? n - i : 16;
    uint16_t packed[16];
    if (type == kF16) {
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

void swiglu(const float* gate, const float* up, float* y, uint64_t n) {
  for (uint64_t i = 0; i < n; i += 16) {
    const auto count = static_cast<uint32_t>(n - i < 16 ? n - i : 16);
    const F16 g = load(gate + i, count);
    const F16 silu = div(g, add(set1(1.0f), exp(sub(zero(), g))));
    store(y + i, mul(silu, load(up + i, count)), count);
  }
}

void add(const float* a, const float* b, float* y, uint64_t n) {
  for (uint64_t i = 0; i < n; i += 16) {
    const auto count = static_cast<uint32_t>(n - i < 16 ? n - i : 16);
    store(y + i, add(load(a + i, count), load(b + i, count)), count);
  }
}

constexpr CpuKernels kTable = {kIsaName, kQ8Offset, quantise, linear, attention, merge,
                               finish,   append,    rms_norm, swiglu, add};

}  // namespace
}  // namespace foundry::cpu::FOUNDRY_ISA
