// Sixteen lanes in one register: AVX-512 F, BW, VL, DQ, VNNI.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#ifndef FOUNDRY_ISA  // AMX's kernels are written in it too
#define FOUNDRY_ISA avx512
#endif
#define FOUNDRY_UNROLL _Pragma("GCC unroll 8")
namespace foundry::cpu::FOUNDRY_ISA {

constexpr const char* kIsaName = "avx512";
constexpr int32_t kQ8Offset = 128;   // vpdpbusd takes unsigned weights
constexpr uint32_t kRowTile = 8;     // rows of a linear tile
constexpr uint32_t kPlainRows = 8;   // of weights in f32, f16 and bf16: sums enough to keep the multipliers busy
constexpr uint32_t kQueryTile = 8;   // queries that share a load of K or V, at most
constexpr uint32_t kSums = 28;       // that attention keeps in registers
constexpr uint32_t kDotQueries = 8;  // whose sums of byte products registers hold
constexpr bool kDotsOfQ8 = true, kDotsOfCodes = true;  // byte dot products beat f32 on what add_q8 and add_codes add

struct F16 {
  __m512 v;
};
struct I16 {
  __m512i v;
};
inline __mmask16 lanes(uint32_t n) { return static_cast<__mmask16>((1u << n) - 1); }

inline F16 zero() { return {_mm512_setzero_ps()}; }
inline F16 set1(float x) { return {_mm512_set1_ps(x)}; }
inline F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F16 load(const float* p, uint32_t n) { return {_mm512_maskz_loadu_ps(lanes(n), p)}; }
inline void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
inline void store(float* p, F16 a, uint32_t n) { _mm512_mask_storeu_ps(p, lanes(n), a.v); }
/// To memory that is not read soon: past the caches, which then need not read it first. Ordered before other stores by
/// streamed() alone.
inline void stream(float* p, F16 a) { _mm512_stream_ps(p, a.v); }
inline void streamed() { _mm_sfence(); }
constexpr uint64_t kStreamAlign = 64;
inline F16 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline F16 load_f16(const uint16_t* p, uint32_t n) { return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes(n), p))}; }
inline F16 widen_bf16(__m256i h) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))}; }
inline F16 load_bf16(const uint16_t* p) { return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline F16 load_bf16(const uint16_t* p, uint32_t n) { return widen_bf16(_mm256_maskz_loadu_epi16(lanes(n), p)); }
inline float widen_f16(const uint16_t* p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*p))); }
inline F16 widen_i8(__m128i b) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b))}; }
inline F16 load_i8(const std::byte* p, uint32_t n) { return widen_i8(_mm_maskz_loadu_epi8(lanes(n), p)); }
/// The low and the high nibbles of n bytes, less 8.
inline void load_nibbles(const std::byte* p, uint32_t n, F16& low, F16& high) {
  const __m128i b = _mm_maskz_loadu_epi8(lanes(n), p), mask = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
  low = widen_i8(_mm_sub_epi8(_mm_and_si128(b, mask), eight));
  high = widen_i8(_mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(b, 4), mask), eight));
}
inline void to_f16(F16 a, uint16_t* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F16 add(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F16 sub(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F16 mul(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F16 div(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F16 max(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F16 min(F16 a, F16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F16 abs(F16 a) { return {_mm512_abs_ps(a.v)}; }
inline F16 round(F16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
/// a where lane index is in begin .. end, else b.
inline F16 select(uint32_t begin, uint32_t end, F16 a, F16 b) {
  return {_mm512_mask_blend_ps(static_cast<__mmask16>(lanes(end) & ~lanes(begin)), b.v, a.v)};
}
/// a * 2^n, n whole, the result normal or zero.
inline F16 scale2(F16 a, F16 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
inline F16 to_float(I16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I16 load_i32(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline I16 izero() { return {_mm512_setzero_si512()}; }
inline I16 iset1(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I16 isub(I16 a, I16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I16 iadd(I16 a, I16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I16 shift_left7(I16 a) { return {_mm512_slli_epi32(a.v, 7)}; }
inline I16 shift_right7(I16 a) { return {_mm512_srai_epi32(a.v, 7)}; }
inline I16 to_int(F16 a) { return {_mm512_cvtps_epi32(a.v)}; }
inline void store_i8(int8_t* p, I16 a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v)); }
inline int32_t sum(I16 a) { return _mm512_reduce_add_epi32(a.v); }

/// 64 bytes: four neighbouring k of each of 16 outputs.
struct Bytes {
  __m512i v;
};
inline void store_bytes(std::byte* p, Bytes a) { _mm512_storeu_si512(p, a.v); }
inline Bytes load_bytes(const std::byte* p) { return {_mm512_loadu_si512(p)}; }
/// Of n outputs; reads nothing behind them.
inline Bytes load_bytes(const std::byte* p, uint32_t n) { return {_mm512_maskz_loadu_epi32(lanes(n), p)}; }
/// Signed bytes as add_q8() takes them: off by kQ8Offset.
inline Bytes with_q8_offset(Bytes a) { return {_mm512_xor_si512(a.v, _mm512_set1_epi8(-128))}; }
/// Byte i of each four, signed.
template <int i>
inline F16 widen_byte(Bytes a) {
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(a.v, 24 - 8 * i), 24))};
}
inline Bytes each_byte(int x) { return {_mm512_set1_epi8(static_cast<char>(x))}; }
inline Bytes both(Bytes a, Bytes b) { return {_mm512_and_si512(a.v, b.v)}; }
inline Bytes either(Bytes a, Bytes b) { return {_mm512_or_si512(a.v, b.v)}; }
/// Bytes moved to the left, or to the right where n is negative; bits from a neighbour come in, and are to be masked.
template <int n>
inline Bytes shifted(Bytes a) {
  if constexpr (n > 0) return {_mm512_slli_epi16(a.v, n)};
  if constexpr (n < 0) return {_mm512_srli_epi16(a.v, -n)};
  return a;
}
/// Of each byte, 0 .. 15, what the table has there.
inline Bytes lookup(const uint8_t (&table)[16], Bytes codes) {
  const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(all), codes.v)};
}
/// A sum of products of bytes. (Families that add in 16 bits settle() it where full_after() says so.)
struct Dots {
  I16 settled;
};
inline Dots dots_from(I16 start) { return {start}; }
constexpr bool full_after(uint32_t, uint32_t) { return false; }
inline void settle(Dots&) {}
/// To each output's sum its four weights times the four activations. Codes are 0 .. 63; Q8 as packed with kQ8Offset.
inline void add_codes(Dots& sum, Bytes w, int32_t four) {
  sum.settled.v = _mm512_dpbusd_epi32(sum.settled.v, w.v, _mm512_set1_epi32(four));
}
inline void add_q8(Dots& sum, Bytes w, int32_t four) { add_codes(sum, w, four); }

}  // namespace foundry::cpu::FOUNDRY_ISA
