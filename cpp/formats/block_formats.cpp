#include "formats/block_formats.h"

#include <bit>
#include <cstring>
#include <string>
#include <type_traits>

#include "base/error.h"
#include "formats/half.h"
#include "quant_blocks.h"

namespace foundry {
namespace {

static_assert(std::endian::native == std::endian::little, "weights are read where they lie, and GGUF is little endian");

template <class T>
T load(const std::byte* src, uint64_t index) {
  T value;
  std::memcpy(&value, src + index * sizeof(T), sizeof(T));
  return value;
}

template <class Block>
void dequantise_blocks(const std::byte* src, float* dst, uint64_t n) {
  for (uint64_t i = 0; i < n / kQuantBlock; ++i) {
    const Block block = load<Block>(src, i);
    float* out = dst + i * kQuantBlock;
    const float scale = f16_to_f32(block.scale);
    if constexpr (std::is_same_v<Block, BlockQ8_0>) {
      for (int j = 0; j < 32; ++j) out[j] = scale * static_cast<float>(block.values[j]);
    } else {
      for (int j = 0; j < 16; ++j) {
        const int low = block.nibbles[j] & 15, high = block.nibbles[j] >> 4;
        if constexpr (std::is_same_v<Block, BlockQ4_0>) {
          out[j] = scale * static_cast<float>(low - 8);
          out[j + 16] = scale * static_cast<float>(high - 8);
        } else {
          const float minimum = f16_to_f32(block.minimum);
          out[j] = scale * static_cast<float>(low) + minimum;
          out[j + 16] = scale * static_cast<float>(high) + minimum;
        }
      }
    }
  }
}

}  // namespace

uint64_t row_bytes(DType type, uint64_t n) {
  if (n % block_elements(type) != 0)
    throw ValueError(std::string(dtype_name(type)) + ": expected a multiple of " +
                     std::to_string(block_elements(type)) + " values, found " + std::to_string(n));
  return n / block_elements(type) * block_bytes(type);
}

void dequantise_row(DType type, const std::byte* src, float* dst, uint64_t n) {
  const uint64_t bytes = row_bytes(type, n);
  switch (type) {
    case DType::f32:
      if (bytes != 0) std::memcpy(dst, src, bytes);
      return;
    case DType::f16:
      for (uint64_t i = 0; i < n; ++i) dst[i] = f16_to_f32(load<uint16_t>(src, i));
      return;
    case DType::bf16:
      for (uint64_t i = 0; i < n; ++i) dst[i] = bf16_to_f32(load<uint16_t>(src, i));
      return;
    case DType::q4_0:
      return dequantise_blocks<BlockQ4_0>(src, dst, n);
    case DType::q4_1:
      return dequantise_blocks<BlockQ4_1>(src, dst, n);
    case DType::q8_0:
      return dequantise_blocks<BlockQ8_0>(src, dst, n);
  }
  throw ValueError("type " + std::to_string(static_cast<uint32_t>(type)) + " cannot be dequantised");
}

}  // namespace foundry
