#include "formats/block_formats.h"

#include <bit>
#include <cstring>
#include <string>

#include "base/error.h"
#include "formats/codes.h"
#include "formats/half.h"

namespace foundry {

static_assert(std::endian::native == std::endian::little, "weights are read where they lie, and GGUF is little endian");

void dequantise(const BlockF32& block, float* to) { *to = block.value; }
void dequantise(const BlockF16& block, float* to) { *to = f16_to_f32(block.bits); }
void dequantise(const BlockBF16& block, float* to) { *to = bf16_to_f32(block.bits); }

void dequantise(const BlockQ8_0& block, float* to) {
  const float scale = f16_to_f32(block.scale);
  for (int j = 0; j < 32; ++j) to[j] = scale * static_cast<float>(block.values[j]);
}

void dequantise(const BlockQ4_1& block, float* to) {
  const float scale = f16_to_f32(block.scale), minimum = f16_to_f32(block.minimum);
  for (int j = 0; j < 16; ++j) {
    to[j] = scale * static_cast<float>(block.nibbles[j] & 15) + minimum;
    to[j + 16] = scale * static_cast<float>(block.nibbles[j] >> 4) + minimum;
  }
}

void dequantise(const BlockQ4_0& block, float* to) {
  const float scale = f16_to_f32(block.scale);
  for (int j = 0; j < 16; ++j) {
    to[j] = scale * static_cast<float>((block.nibbles[j] & 15) - 8);
    to[j + 16] = scale * static_cast<float>((block.nibbles[j] >> 4) - 8);
  }
}

namespace {

constexpr int8_t kIq4Values[16] = {FOUNDRY_IQ4_VALUES};
constexpr int8_t kMxfp4Values[16] = {FOUNDRY_MXFP4_VALUES};

/// 256 values: value(code) times the scale of its group.
template <class Block, class Value>
void scaled(const Block& block, uint32_t group, float* to, Value value) {
  Codes codes;
  take_apart(block, codes);
  const float scale = f16_to_f32(block.scale);
  for (uint32_t i = 0; i < 256; ++i)
    to[i] = scale * static_cast<float>(codes.scales[i / group]) * static_cast<float>(value(codes.q[i]));
}

/// Scale and group's scale over 2^shift, times a magnitude or less it. Each product is exact, whatever its order.
template <uint32_t shift, int... magnitudes, class Block>
void of_grid(const Block& block, uint32_t group, float* to) {
  constexpr int kSigned[] = {magnitudes..., -magnitudes...};
  Codes codes;
  take_apart(block, codes);
  const float scale = f16_to_f32(block.scale) / static_cast<float>(1u << shift);
  for (uint32_t i = 0; i < 256; ++i)
    to[i] = scale * static_cast<float>(codes.scales[i / group]) * static_cast<float>(kSigned[codes.q[i]]);
}

template <class Block>
void scaled_less_minima(const Block& block, uint32_t group, float* to) {
  Codes codes;
  take_apart(block, codes);
  const float scale = f16_to_f32(block.scale), minimum = f16_to_f32(block.minimum);
  for (uint32_t i = 0; i < 256; ++i)
    to[i] = scale * static_cast<float>(codes.scales[i / group]) * static_cast<float>(codes.q[i]) -
            minimum * static_cast<float>(codes.minima[i / group]);
}

}  // namespace

void dequantise(const BlockQ5_0& block, float* to) {
  Codes codes;
  take_apart(block, codes);
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < 32; ++i) to[i] = scale * static_cast<float>(codes.q[i] - 16);
}

void dequantise(const BlockQ5_1& block, float* to) {
  Codes codes;
  take_apart(block, codes);
  const float scale = f16_to_f32(block.scale), minimum = f16_to_f32(block.minimum);
  for (int i = 0; i < 32; ++i) to[i] = scale * static_cast<float>(codes.q[i]) + minimum;
}

void dequantise(const BlockIQ4_NL& block, float* to) {
  Codes codes;
  take_apart(block, codes);
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < 32; ++i) to[i] = scale * static_cast<float>(kIq4Values[codes.q[i]]);
}

void dequantise(const BlockMXFP4& block, float* to) {
  Codes codes;
  take_apart(block, codes);
  const float scale = bf16_to_f32(mxfp4_scale(block.exponent));
  for (int i = 0; i < 32; ++i) to[i] = scale * static_cast<float>(kMxfp4Values[codes.q[i]]);
}

void dequantise(const BlockQ6_K& block, float* to) {
  scaled(block, 16, to, [](int q) { return q - 32; });
}
void dequantise(const BlockQ3_K& block, float* to) {
  scaled(block, 16, to, [](int q) { return q - 4; });
}
void dequantise(const BlockIQ4_XS& block, float* to) {
  scaled(block, 32, to, [](int q) { return kIq4Values[q]; });
}
void dequantise(const BlockIQ2_XXS& block, float* to) { of_grid<3, FOUNDRY_IQ2_MAGNITUDES>(block, 32, to); }
void dequantise(const BlockIQ2_XS& block, float* to) { of_grid<3, FOUNDRY_IQ2_MAGNITUDES>(block, 16, to); }
void dequantise(const BlockIQ2_S& block, float* to) { of_grid<3, FOUNDRY_IQ2_MAGNITUDES>(block, 16, to); }
void dequantise(const BlockIQ3_XXS& block, float* to) { of_grid<2, FOUNDRY_IQ3_XXS_MAGNITUDES>(block, 32, to); }
void dequantise(const BlockIQ3_S& block, float* to) { of_grid<0, FOUNDRY_IQ3_S_MAGNITUDES>(block, 32, to); }
void dequantise(const BlockQ5_K& block, float* to) { scaled_less_minima(block, 32, to); }
void dequantise(const BlockQ4_K& block, float* to) { scaled_less_minima(block, 32, to); }
void dequantise(const BlockQ2_K& block, float* to) { scaled_less_minima(block, 16, to); }

namespace {

template <class Block, uint32_t elements>
void dequantise_blocks(const std::byte* src, float* dst, uint64_t n) {
  for (uint64_t i = 0; i < n; i += elements) {
    Block block;
    std::memcpy(&block, src + i / elements * sizeof block, sizeof block);
    dequantise(block, dst + i);
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
  row_bytes(type, n);  // whole blocks
#define FOUNDRY_ROW(name, Name, ...) \
  case DType::name:                  \
    return dequantise_blocks<Block##Name, BlockSize<DType::name>::elements>(src, dst, n);
  switch (type) { FOUNDRY_FORMATS(FOUNDRY_ROW) }
#undef FOUNDRY_ROW
  throw ValueError("type " + std::to_string(static_cast<uint32_t>(type)) + " cannot be dequantised");
}

}  // namespace foundry
