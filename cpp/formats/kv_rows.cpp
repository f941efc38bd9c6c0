#include "formats/kv_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/dtype.h"
#include "formats/half.h"

namespace foundry {
namespace {

constexpr uint32_t kBlock = 32;
constexpr uint16_t kNan = 0x7e00;

bool finite(const float* x) {
  float nothing = 0;
  for (uint32_t i = 0; i < kBlock; ++i) nothing += x[i] * 0.0f;
  return nothing == 0;
}

float plain(DType type, const std::byte* at) {
  uint16_t half;
  float whole;
  if (type == DType::f32) return std::memcpy(&whole, at, sizeof whole), whole;
  std::memcpy(&half, at, sizeof half);
  return type == DType::f16 ? f16_to_f32(half) : bf16_to_f32(half);
}

void put_plain(DType type, std::byte* at, float x) {
  if (type == DType::f32) {
    std::memcpy(at, &x, sizeof x);
    return;
  }
  const uint16_t half = type == DType::f16 ? f32_to_f16(x) : f32_to_bf16(x);
  std::memcpy(at, &half, sizeof half);
}

bool quantised(DType type) { return block_elements(type) != 1; }

/// Where a block's scale and values lie, and how far apart the values are.
struct Block {
  uint64_t scale, values, stride;
};

Block k_block(const KvParams& kv, DType type, uint32_t token, uint32_t block) {
  const uint64_t tile = kv.tile_tokens, blocks = kv.head_dim / kBlock, lane = token % tile;
  const uint64_t at = (token / tile * blocks + block) * tile * block_bytes(type);
  return {at + lane * sizeof(uint16_t), at + tile * sizeof(uint16_t) + lane, tile};
}

Block v_block(const KvParams& kv, DType type, uint32_t token, uint32_t block) {
  const uint64_t at = (uint64_t{token} * (kv.head_dim / kBlock) + block) * block_bytes(type);
  return {at, at + sizeof(uint16_t), 1};
}

void put_block(DType type, std::byte* part, const Block& at, const float* x) {
  uint16_t scale;
  if (type == DType::q8_0) {
    int8_t q[kBlock];
    scale = quantise_q8_0(x, q);
    for (uint32_t i = 0; i < kBlock; ++i) part[at.values + i * at.stride] = static_cast<std::byte>(q[i]);
  } else {
    uint8_t q[kBlock];
    scale = quantise_q4_0(x, q);
    for (uint32_t i = 0; i < kBlock / 2; ++i)
      part[at.values + i * at.stride] = static_cast<std::byte>(q[i] | q[i + kBlock / 2] << 4);
  }
  std::memcpy(part + at.scale, &scale, sizeof scale);
}

float block_value(DType type, const std::byte* part, const Block& at, uint32_t i) {
  uint16_t scale;
  std::memcpy(&scale, part + at.scale, sizeof scale);
  if (type == DType::q8_0)
    return f16_to_f32(scale) * static_cast<float>(static_cast<int8_t>(part[at.values + i * at.stride]));
  const auto both = static_cast<uint8_t>(part[at.values + i % 16 * at.stride]);
  return f16_to_f32(scale) * static_cast<float>((i < 16 ? both & 15 : both >> 4) - 8);
}

uint64_t plain_k(const KvParams& kv, uint32_t token, uint32_t dim) {
  return (uint64_t{token} / kv.tile_tokens * kv.head_dim + dim) * kv.tile_tokens + token % kv.tile_tokens;
}

uint64_t plain_v(const KvParams& kv, uint32_t token, uint32_t dim) { return uint64_t{token} * kv.head_dim + dim; }

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
  const auto type = static_cast<DType>(kv.k_type);
  if (quantised(type))
    for (uint32_t b = 0; b < kv.head_dim / kBlock; ++b)
      put_block(type, part, k_block(kv, type, token, b), x + b * kBlock);
  else
    for (uint32_t d = 0; d < kv.head_dim; ++d) put_plain(type, part + plain_k(kv, token, d) * block_bytes(type), x[d]);
}

void write_v(const KvParams& kv, std::byte* part, uint32_t token, const float* x) {
  const auto type = static_cast<DType>(kv.v_type);
  if (quantised(type))
    for (uint32_t b = 0; b < kv.head_dim / kBlock; ++b)
      put_block(type, part, v_block(kv, type, token, b), x + b * kBlock);
  else
    for (uint32_t d = 0; d < kv.head_dim; ++d) put_plain(type, part + plain_v(kv, token, d) * block_bytes(type), x[d]);
}

float read_k(const KvParams& kv, const std::byte* part, uint32_t token, uint32_t dim) {
  const auto type = static_cast<DType>(kv.k_type);
  return quantised(type) ? block_value(type, part, k_block(kv, type, token, dim / kBlock), dim % kBlock)
                         : plain(type, part + plain_k(kv, token, dim) * block_bytes(type));
}

float read_v(const KvParams& kv, const std::byte* part, uint32_t token, uint32_t dim) {
  const auto type = static_cast<DType>(kv.v_type);
  return quantised(type) ? block_value(type, part, v_block(kv, type, token, dim / kBlock), dim % kBlock)
                         : plain(type, part + plain_v(kv, token, dim) * block_bytes(type));
}

}  // namespace foundry
