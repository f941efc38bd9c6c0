#include "formats/kv_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/dtype.h"
#include "formats/half.h"

namespace foundry {
namespace {

constexpr uint32_t kBlock = 32;  // values of a quantise_*
constexpr uint16_t kNan = 0x7e00;

bool finite(const float* x) {
  float nothing = 0;
  for (uint32_t i = 0; i < kBlock; ++i) nothing += x[i] * 0.0f;
  return nothing == 0;
}

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// Where a block of K or V lies: its scale, and the bytes of its values, in fours that are `stride` bytes apart. A
/// plain value is at `scale`.
struct Place {
  uint64_t scale, values, stride;
  uint64_t byte(uint32_t i) const { return values + i / 4 * stride + i % 4; }
};

// How each of these formats writes the values of a block, and reads one of them.
template <DType type>
struct Stored;

template <>
struct Stored<DType::f32> {
  static void put(std::byte* part, const Place& at, const float* x) { std::memcpy(part + at.scale, x, sizeof *x); }
  static float get(const std::byte* part, const Place& at, uint32_t) { return load<float>(part + at.scale); }
};

template <>
struct Stored<DType::f16> {
  static void put(std::byte* part, const Place& at, const float* x) {
    const uint16_t half = f32_to_f16(*x);
    std::memcpy(part + at.scale, &half, sizeof half);
  }
  static float get(const std::byte* part, const Place& at, uint32_t) {
    return f16_to_f32(load<uint16_t>(part + at.scale));
  }
};

template <>
struct Stored<DType::bf16> {
  static void put(std::byte* part, const Place& at, const float* x) {
    const uint16_t half = f32_to_bf16(*x);
    std::memcpy(part + at.scale, &half, sizeof half);
  }
  static float get(const std::byte* part, const Place& at, uint32_t) {
    return bf16_to_f32(load<uint16_t>(part + at.scale));
  }
};

template <>
struct Stored<DType::q8_0> {
  static void put(std::byte* part, const Place& at, const float* x) {
    int8_t q[32];
    const uint16_t scale = quantise_q8_0(x, q);
    for (uint32_t i = 0; i < 32; ++i) part[at.byte(i)] = static_cast<std::byte>(q[i]);
    std::memcpy(part + at.scale, &scale, sizeof scale);
  }
  static float get(const std::byte* part, const Place& at, uint32_t i) {
    return f16_to_f32(load<uint16_t>(part + at.scale)) * static_cast<float>(static_cast<int8_t>(part[at.byte(i)]));
  }
};

template <>
struct Stored<DType::q4_0> {
  static void put(std::byte* part, const Place& at, const float* x) {
    uint8_t q[32];
    const uint16_t scale = quantise_q4_0(x, q);
    for (uint32_t i = 0; i < 16; ++i) part[at.byte(i)] = static_cast<std::byte>(q[i] | q[i + 16] << 4);
    std::memcpy(part + at.scale, &scale, sizeof scale);
  }
  static float get(const std::byte* part, const Place& at, uint32_t i) {
    const auto both = static_cast<uint8_t>(part[at.byte(i % 16)]);
    return f16_to_f32(load<uint16_t>(part + at.scale)) * static_cast<float>((i < 16 ? both & 15 : both >> 4) - 8);
  }
};

/// K of `tile` tokens lies side by side: plain values one by one, of blocks the scales and then fours of the values'
/// bytes.
Place k_place(const KvParams& kv, DType type, uint32_t token, uint32_t block) {
  const uint64_t tile = kv.tile_tokens, blocks = kv.head_dim / block_elements(type), lane = token % tile;
  const uint64_t at = (token / tile * blocks + block) * tile * block_bytes(type);
  if (block_elements(type) == 1) return {at + lane * block_bytes(type), 0, 0};
  return {at + lane * sizeof(uint16_t), at + tile * sizeof(uint16_t) + lane * 4, tile * 4};
}

Place v_place(const KvParams& kv, DType type, uint32_t token, uint32_t block) {
  const uint64_t at = (uint64_t{token} * (kv.head_dim / block_elements(type)) + block) * block_bytes(type);
  return {at, at + sizeof(uint16_t), 4};
}

template <class Where>
void write(const KvParams& kv, DType type, std::byte* part, uint32_t token, const float* x, Where where) {
  const uint32_t elements = block_elements(type);
  for (uint32_t b = 0; b < kv.head_dim / elements; ++b) {
    const Place at = where(kv, type, token, b);
#define FOUNDRY_PUT(name, Name, number, n_elements, n_bytes, kind, linear, table, kv_) \
  FOUNDRY_HOST_##kv_(case DType::name : Stored<DType::name>::put(part, at, x + b * elements); break;)
    switch (type) {
      FOUNDRY_FORMATS(FOUNDRY_PUT)
      default:
        break;  // KvGeometry has refused it
    }
#undef FOUNDRY_PUT
  }
}

template <class Where>
float read(const KvParams& kv, DType type, const std::byte* part, uint32_t token, uint32_t dim, Where where) {
  const Place at = where(kv, type, token, dim / block_elements(type));
  const uint32_t i = dim % block_elements(type);
#define FOUNDRY_GET(name, Name, number, n_elements, n_bytes, kind, linear, table, kv_) \
  FOUNDRY_HOST_##kv_(case DType::name : return Stored<DType::name>::get(part, at, i);)
  switch (type) {
    FOUNDRY_FORMATS(FOUNDRY_GET)
    default:
      return 0;
  }
#undef FOUNDRY_GET
}

}  // namespace

uint16_t quantise_q8_0(const float* x, int8_t* q) {
  if (!finite(x)) return std::memset(q, 0, kBlock), kNan;
  float most = 0;
  for (uint32_t i = 0; i < kBlock; ++i) most = std::max(most, std::fabs(x[i]));
  const uint16_t scale = f32_to_f16(most / 127);
  const float rounded = f16_to_f32(scale), inverse = rounded == 0 ? 0 : 1 / rounded;
  for (uint32_t i = 0; i < kBlock; ++i)
    q[i] = static_cast<int8_t>(std::clamp(std::nearbyint(x[i] * inverse), -127.0f, 127.0f));
  return scale;
}

uint16_t quantise_q4_0(const float* x, uint8_t* q) {
  if (!finite(x)) return std::memset(q, 8, kBlock), kNan;
  float most = 0;
  for (uint32_t i = 0; i < kBlock; ++i)
    if (std::fabs(x[i]) > std::fabs(most)) most = x[i];
  const uint16_t scale = f32_to_f16(most / -8);
  const float rounded = f16_to_f32(scale), inverse = rounded == 0 ? 0 : 1 / rounded;
  for (uint32_t i = 0; i < kBlock; ++i)
    q[i] = static_cast<uint8_t>(std::clamp(std::nearbyint(x[i] * inverse) + 8, 0.0f, 15.0f));
  return scale;
}

void write_k(const KvParams& kv, std::byte* part, uint32_t token, const float* x) {
  write(kv, static_cast<DType>(kv.k_type), part, token, x, k_place);
}

void write_v(const KvParams& kv, std::byte* part, uint32_t token, const float* x) {
  write(kv, static_cast<DType>(kv.v_type), part, token, x, v_place);
}

float read_k(const KvParams& kv, const std::byte* part, uint32_t token, uint32_t dim) {
  return read(kv, static_cast<DType>(kv.k_type), part, token, dim, k_place);
}

float read_v(const KvParams& kv, const std::byte* part, uint32_t token, uint32_t dim) {
  return read(kv, static_cast<DType>(kv.v_type), part, token, dim, v_place);
}

}  // namespace foundry
