// Sixteen lanes as an array, which compilers turn into the vectors that there are: x86-64-v2, and Arm, whose byte dot
// product has no plain-code twin and is spelled out.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include "formats/half.h"
#ifdef __ARM_FEATURE_DOTPROD
#include <arm_neon.h>
#endif

#define FOUNDRY_ISA baseline
#define FOUNDRY_UNROLL
namespace foundry::cpu::baseline {

#ifdef __aarch64__
constexpr const char* kIsaName = "neon";
#elif defined(__x86_64__)
constexpr const char* kIsaName = "x86-64-v2";
#else
constexpr const char* kIsaName = "portable";
#endif
constexpr int32_t kQ8Offset = 0;
constexpr uint32_t kRowTile = 2;
constexpr uint32_t kPlainRows = 2;
constexpr uint32_t kQueryTile = 2;
constexpr uint32_t kSums = 2;
constexpr uint32_t kDotQueries = 2;
#ifdef __ARM_FEATURE_DOTPROD
constexpr bool kDotsOfQ8 = true, kDotsOfCodes = true;
#else
constexpr bool kDotsOfQ8 = false, kDotsOfCodes = false;
#endif

struct F16 {
  float v[16];
};
struct I16 {
  int32_t v[16];
};

#define FOUNDRY_LANES(type, expression)                    \
  type r;                                                  \
  for (uint32_t i = 0; i < 16; ++i) r.v[i] = (expression); \
  return r
inline F16 set1(float x) { FOUNDRY_LANES(F16, x); }
inline F16 zero() { return set1(0); }
inline F16 load(const float* p) { FOUNDRY_LANES(F16, p[i]); }
inline F16 load(const float* p, uint32_t n) { FOUNDRY_LANES(F16, i < n ? p[i] : 0.0f); }
inline void store(float* p, F16 a) {
  for (uint32_t i = 0; i < 16; ++i) p[i] = a.v[i];
}
inline void store(float* p, F16 a, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) p[i] = a.v[i];
}
inline void stream(float* p, F16 a) { store(p, a); }
inline void streamed() {}
constexpr uint64_t kStreamAlign = 4;
inline F16 load_f16(const uint16_t* p) { FOUNDRY_LANES(F16, f16_to_f32(p[i])); }
inline F16 load_f16(const uint16_t* p, uint32_t n) { FOUNDRY_LANES(F16, i < n ? f16_to_f32(p[i]) : 0.0f); }
inline F16 load_bf16(const uint16_t* p) { FOUNDRY_LANES(F16, bf16_to_f32(p[i])); }
inline F16 load_bf16(const uint16_t* p, uint32_t n) { FOUNDRY_LANES(F16, i < n ? bf16_to_f32(p[i]) : 0.0f); }
inline float widen_f16(const uint16_t* p) { return f16_to_f32(*p); }
inline F16 load_i8(const std::byte* p, uint32_t n) {
  FOUNDRY_LANES(F16, i < n ? static_cast<float>(static_cast<int8_t>(p[i])) : 0.0f);
}
inline void load_nibbles(const std::byte* p, uint32_t n, F16& low, F16& high) {
  for (uint32_t i = 0; i < 16; ++i) {
    const int both = i < n ? static_cast<int>(p[i]) : 0x88;
    low.v[i] = static_cast<float>((both & 15) - 8);
    high.v[i] = static_cast<float>((both >> 4) - 8);
  }
}
inline void to_f16(F16 a, uint16_t* p) {
  for (uint32_t i = 0; i < 16; ++i) p[i] = f32_to_f16(a.v[i]);
}
inline F16 add(F16 a, F16 b) { FOUNDRY_LANES(F16, a.v[i] + b.v[i]); }
inline F16 sub(F16 a, F16 b) { FOUNDRY_LANES(F16, a.v[i] - b.v[i]); }
inline F16 mul(F16 a, F16 b) { FOUNDRY_LANES(F16, a.v[i] * b.v[i]); }
inline F16 div(F16 a, F16 b) { FOUNDRY_LANES(F16, a.v[i] / b.v[i]); }
#ifdef __aarch64__
inline F16 fma(F16 a, F16 b, F16 c) { FOUNDRY_LANES(F16, __builtin_fmaf(a.v[i], b.v[i], c.v[i])); }
#else  // without the instruction fmaf is a slow library call: two roundings, always
inline F16 fma(F16 a, F16 b, F16 c) { FOUNDRY_LANES(F16, a.v[i] * b.v[i] + c.v[i]); }
#endif
inline F16 max(F16 a, F16 b) { FOUNDRY_LANES(F16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline F16 min(F16 a, F16 b) { FOUNDRY_LANES(F16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline F16 abs(F16 a) { FOUNDRY_LANES(F16, __builtin_fabsf(a.v[i])); }
inline F16 round(F16 a) { FOUNDRY_LANES(F16, __builtin_rintf(a.v[i])); }
inline F16 select(uint32_t begin, uint32_t end, F16 a, F16 b) {
  FOUNDRY_LANES(F16, i >= begin && i < end ? a.v[i] : b.v[i]);
}
inline float exp2_whole(float n) { return std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23); }
inline F16 scale2(F16 a, F16 n) { FOUNDRY_LANES(F16, a.v[i] * exp2_whole(n.v[i])); }
inline F16 to_float(I16 a) { FOUNDRY_LANES(F16, static_cast<float>(a.v[i])); }
inline I16 iset1(int32_t x) { FOUNDRY_LANES(I16, x); }
inline I16 izero() { return iset1(0); }
inline I16 isub(I16 a, I16 b) { FOUNDRY_LANES(I16, a.v[i] - b.v[i]); }
inline I16 iadd(I16 a, I16 b) { FOUNDRY_LANES(I16, a.v[i] + b.v[i]); }
inline I16 shift_left7(I16 a) { FOUNDRY_LANES(I16, a.v[i] * 128); }
inline I16 shift_right7(I16 a) { FOUNDRY_LANES(I16, a.v[i] >> 7); }
inline I16 to_int(F16 a) { FOUNDRY_LANES(I16, static_cast<int32_t>(__builtin_rintf(a.v[i]))); }
inline void store_i8(int8_t* p, I16 a) {
  for (uint32_t i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}
inline int32_t sum(I16 a) {
  int32_t total = 0;
  for (const int32_t x : a.v) total += x;
  return total;
}

struct Bytes {
  int8_t v[64];
};
inline Bytes load_bytes(const std::byte* p) {
  Bytes r;
  for (uint32_t i = 0; i < 64; ++i) r.v[i] = static_cast<int8_t>(p[i]);
  return r;
}
inline Bytes load_bytes(const std::byte* p, uint32_t n) {
  Bytes r;
  for (uint32_t i = 0; i < 64; ++i) r.v[i] = i < 4 * n ? static_cast<int8_t>(p[i]) : int8_t{0};
  return r;
}
inline Bytes with_q8_offset(const Bytes& a) { return a; }
template <int i>
inline F16 widen_byte(const Bytes& a) {
  F16 r;
  for (uint32_t lane = 0; lane < 16; ++lane) r.v[lane] = static_cast<float>(a.v[4 * lane + i]);
  return r;
}
inline Bytes each_byte(int x) {
  Bytes r;
  for (int8_t& byte : r.v) byte = static_cast<int8_t>(x);
  return r;
}
inline Bytes both(Bytes a, Bytes b) {
  for (uint32_t i = 0; i < 64; ++i) a.v[i] = static_cast<int8_t>(a.v[i] & b.v[i]);
  return a;
}
inline Bytes either(Bytes a, Bytes b) {
  for (uint32_t i = 0; i < 64; ++i) a.v[i] = static_cast<int8_t>(a.v[i] | b.v[i]);
  return a;
}
template <int n>
inline Bytes shifted(Bytes a) {
  if constexpr (n > 0)
    for (int8_t& x : a.v) x = static_cast<int8_t>(static_cast<uint8_t>(x) << n);
  if constexpr (n < 0)
    for (int8_t& x : a.v) x = static_cast<int8_t>(static_cast<uint8_t>(x) >> -n);
  return a;
}
inline Bytes lookup(const uint8_t (&table)[16], Bytes codes) {
  for (int8_t& x : codes.v) x = static_cast<int8_t>(table[static_cast<uint8_t>(x)]);
  return codes;
}
struct Dots {
  I16 settled;
};
inline Dots dots_from(I16 start) { return {start}; }
constexpr bool full_after(uint32_t, uint32_t) { return false; }
inline void settle(Dots&) {}
#ifdef __ARM_FEATURE_DOTPROD
inline void add_q8(Dots& sum, const Bytes& w, int32_t four) {
  const int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(four));
  int32_t* to = sum.settled.v;
  for (uint32_t i = 0; i < 4; ++i) vst1q_s32(to + 4 * i, vdotq_s32(vld1q_s32(to + 4 * i), vld1q_s8(w.v + 16 * i), all));
}
#else
/// Long in plain code, and used in many places: one copy of it.
__attribute__((noinline)) inline void add_q8(Dots& sum, const Bytes& w, int32_t four) {
  int8_t x[4];
  __builtin_memcpy(x, &four, 4);
  for (uint32_t i = 0; i < 16; ++i)
    sum.settled.v[i] += w.v[4 * i] * x[0] + w.v[4 * i + 1] * x[1] + w.v[4 * i + 2] * x[2] + w.v[4 * i + 3] * x[3];
}
#endif
inline void add_codes(Dots& sum, const Bytes& w, int32_t four) { add_q8(sum, w, four); }
#undef FOUNDRY_LANES

}  // namespace foundry::cpu::baseline
