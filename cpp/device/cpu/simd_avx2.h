// Sixteen lanes in two registers: AVX2, FMA, F16C.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define FOUNDRY_ISA avx2
#define FOUNDRY_UNROLL _Pragma("GCC unroll 8")
namespace foundry::cpu::avx2 {

constexpr const char* kIsaName = "avx2";
constexpr int32_t kQ8Offset = 0;  // vpmaddubsw would saturate on unsigned weights
constexpr uint32_t kRowTile = 2;
constexpr uint32_t kPlainRows = 6;
constexpr uint32_t kQueryTile = 6;
constexpr uint32_t kSums = 6;
constexpr uint32_t kDotQueries = 2;
constexpr bool kDotsOfQ8 = false, kDotsOfCodes = true;

struct F16 {
  __m256 a, b;
};
struct I16 {
  __m256i a, b;
};
inline __m256i lanes(uint32_t n, int first) {
  const __m256i index = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), index);
}

inline F16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F16 load(const float* p, uint32_t n) {
  return {_mm256_maskload_ps(p, lanes(n, 0)), _mm256_maskload_ps(p + 8, lanes(n, 8))};
}
inline void store(float* p, F16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void store(float* p, F16 x, uint32_t n) {
  _mm256_maskstore_ps(p, lanes(n, 0), x.a);
  _mm256_maskstore_ps(p + 8, lanes(n, 8), x.b);
}
inline void stream(float* p, F16 x) {
  _mm256_stream_ps(p, x.a);
  _mm256_stream_ps(p + 8, x.b);
}
inline void streamed() { _mm_sfence(); }
constexpr uint64_t kStreamAlign = 32;
/// The first n of 16 halves, the others zero; reads nothing behind them.
inline void copy_halves(uint16_t* to, const uint16_t* p, uint32_t n) {
  for (uint32_t i = 0; i < 16; ++i) to[i] = i < n ? p[i] : uint16_t{0};
}
inline __m128i half(const uint16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline F16 load_f16(const uint16_t* p) { return {_mm256_cvtph_ps(half(p)), _mm256_cvtph_ps(half(p + 8))}; }
inline F16 load_f16(const uint16_t* p, uint32_t n) {
  if (n == 8) return {_mm256_cvtph_ps(half(p)), _mm256_setzero_ps()};
  uint16_t all[16];
  copy_halves(all, p, n);
  return load_f16(all);
}
inline __m256 widen_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
inline F16 load_bf16(const uint16_t* p) { return {widen_bf16(half(p)), widen_bf16(half(p + 8))}; }
inline F16 load_bf16(const uint16_t* p, uint32_t n) {
  if (n == 8) return {widen_bf16(half(p)), _mm256_setzero_ps()};
  uint16_t all[16];
  copy_halves(all, p, n);
  return load_bf16(all);
}
inline float widen_f16(const uint16_t* p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*p))); }
inline __m128i some_bytes(const std::byte* p, uint32_t n) {
  if (n == 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  std::byte all[16] = {};
  for (uint32_t i = 0; i < n; ++i) all[i] = p[i];
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(all));
}
inline F16 widen_i8(__m128i b) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)))};
}
inline F16 load_i8(const std::byte* p, uint32_t n) { return widen_i8(some_bytes(p, n)); }
inline void load_nibbles(const std::byte* p, uint32_t n, F16& low, F16& high) {
  const __m128i b = some_bytes(p, n), mask = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
  low = widen_i8(_mm_sub_epi8(_mm_and_si128(b, mask), eight));
  high = widen_i8(_mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(b, 4), mask), eight));
}
inline void to_f16(F16 x, uint16_t* p) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, kNearest));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, kNearest));
}
inline F16 add(F16 x, F16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F16 sub(F16 x, F16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F16 mul(F16 x, F16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F16 div(F16 x, F16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F16 fma(F16 x, F16 y, F16 z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F16 max(F16 x, F16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F16 min(F16 x, F16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F16 abs(F16 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline F16 round(F16 x) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, kNearest), _mm256_round_ps(x.b, kNearest)};
}
inline F16 select(uint32_t begin, uint32_t end, F16 x, F16 y) {
  const __m256 ma = _mm256_castsi256_ps(_mm256_andnot_si256(lanes(begin, 0), lanes(end, 0)));
  const __m256 mb = _mm256_castsi256_ps(_mm256_andnot_si256(lanes(begin, 8), lanes(end, 8)));
  return {_mm256_blendv_ps(y.a, x.a, ma), _mm256_blendv_ps(y.b, x.b, mb)};
}
inline __m256 exp2_whole(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline F16 scale2(F16 x, F16 n) { return {_mm256_mul_ps(x.a, exp2_whole(n.a)), _mm256_mul_ps(x.b, exp2_whole(n.b))}; }
inline F16 to_float(I16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline I16 izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline I16 iset1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I16 isub(I16 x, I16 y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline I16 iadd(I16 x, I16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline I16 shift_left7(I16 x) { return {_mm256_slli_epi32(x.a, 7), _mm256_slli_epi32(x.b, 7)}; }
inline I16 shift_right7(I16 x) { return {_mm256_srai_epi32(x.a, 7), _mm256_srai_epi32(x.b, 7)}; }
inline I16 to_int(F16 x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline void store_i8(int8_t* p, I16 x) {
  int32_t wide[16];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide + 8), x.b);
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(wide[i]);
}
inline int32_t sum(I16 x) {
  int32_t wide[8], total = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide), _mm256_add_epi32(x.a, x.b));
  for (const int32_t w : wide) total += w;
  return total;
}

struct Bytes {
  __m256i a, b;
};
inline Bytes load_bytes(const std::byte* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline Bytes load_bytes(const std::byte* p, uint32_t n) {
  const auto* fours = reinterpret_cast<const int*>(p);
  return {_mm256_maskload_epi32(fours, lanes(n, 0)), _mm256_maskload_epi32(fours + 8, lanes(n, 8))};
}
inline Bytes with_q8_offset(Bytes x) { return x; }
template <int i>
inline __m256 widen_byte(__m256i x) {
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(x, 24 - 8 * i), 24));
}
template <int i>
inline F16 widen_byte(Bytes x) {
  return {widen_byte<i>(x.a), widen_byte<i>(x.b)};
}
inline Bytes each_byte(int x) {
  const __m256i all = _mm256_set1_epi8(static_cast<char>(x));
  return {all, all};
}
inline Bytes both(Bytes x, Bytes y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
inline Bytes either(Bytes x, Bytes y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
template <int n>
inline Bytes shifted(Bytes x) {
  if constexpr (n > 0) return {_mm256_slli_epi16(x.a, n), _mm256_slli_epi16(x.b, n)};
  if constexpr (n < 0) return {_mm256_srli_epi16(x.a, -n), _mm256_srli_epi16(x.b, -n)};
  return x;
}
inline Bytes lookup(const uint8_t (&table)[16], Bytes codes) {
  const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return {_mm256_shuffle_epi8(all, codes.a), _mm256_shuffle_epi8(all, codes.b)};
}

/// A sum of products of bytes: what is settled, and the latest in 16 bits, which hold several before they overflow.
struct Dots {
  I16 settled;
  __m256i a, b;
};
inline Dots dots_from(I16 start) { return {start, _mm256_setzero_si256(), _mm256_setzero_si256()}; }
/// Whether to settle() behind the n-th pair of groups of codes of at most `most`: each adds 2 * 2 * 127 * most.
constexpr bool full_after(uint32_t n, uint32_t most) { return n % (32767 / (508 * most)) == 0; }
inline void add_codes(Dots& sum, Bytes w, int32_t four) {
  const __m256i s = _mm256_set1_epi32(four);
  sum.a = _mm256_add_epi16(sum.a, _mm256_maddubs_epi16(w.a, s));
  sum.b = _mm256_add_epi16(sum.b, _mm256_maddubs_epi16(w.b, s));
}
inline __m256i wide(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
inline void settle(Dots& sum) {
  sum.settled = iadd(sum.settled, {wide(sum.a), wide(sum.b)});
  sum.a = sum.b = _mm256_setzero_si256();
}
/// |w| times the activations with w's sign: 128 * 127 * 2 still fits 16 bits.
inline void add_q8(Dots& sum, Bytes w, int32_t four) {
  const __m256i s = _mm256_set1_epi32(four);
  sum.settled = iadd(sum.settled, {wide(_mm256_maddubs_epi16(_mm256_abs_epi8(w.a), _mm256_sign_epi8(s, w.a))),
                                   wide(_mm256_maddubs_epi16(_mm256_abs_epi8(w.b), _mm256_sign_epi8(s, w.b)))});
}

}  // namespace foundry::cpu::avx2
