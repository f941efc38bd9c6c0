// Random inputs for kernel tests and benches: the same numbers on every machine.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "formats/block_formats.h"
#include "formats/half.h"
#include "formats/weight_view.h"
#include "quant_blocks.h"

namespace foundry::kernel_tests {

/// SplitMix64 (Steele, Lea, Flood, 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(next() % n); }
  /// -1 .. 1
  float unit() { return static_cast<float>(static_cast<int64_t>(next() >> 40) - (int64_t{1} << 23)) * 0x1p-23f; }

 private:
  uint64_t state_;
};

inline std::vector<float> random_floats(Random& random, uint64_t n) {
  std::vector<float> values(n);
  for (float& value : values) value = random.unit();
  return values;
}

/// Activations as they come: stretches of 32 between 1/64 and 4 in size, some of them zero, with outliers.
inline std::vector<float> activations(Random& random, uint64_t n) {
  std::vector<float> values(n);
  float size = 1;
  for (uint64_t i = 0; i < n; ++i) {
    if (i % 32 == 0) size = random.below(12) == 0 ? 0 : std::ldexp(1.0f, static_cast<int>(random.below(9)) - 6);
    values[i] = random.unit() * size * (random.below(64) == 0 ? 8.0f : 1.0f);
  }
  return values;
}

/// Activations that int8 blocks of 32 (and finer ones of 15 bits) hold without error: whole numbers to 127, which each
/// block reaches, times a power of two.
inline std::vector<float> exact_activations(Random& random, uint64_t n) {
  std::vector<float> values(n);
  float scale = 1;
  for (uint64_t i = 0; i < n; ++i) {
    if (i % 32 == 0) scale = random.below(12) == 0 ? 0 : std::ldexp(1.0f, -static_cast<int>(random.below(8)) - 5);
    values[i] = scale * (static_cast<float>(random.below(255)) - 127.0f);
    if (i % 32 == 31) values[i - random.below(32)] = random.below(2) == 0 ? 127 * scale : -127 * scale;
  }
  return values;
}

/// A tensor as a model file holds it.
struct WeightData {
  DType type = DType::f32;
  uint64_t rows = 0;
  uint64_t cols = 0;
  std::vector<std::byte> bytes;  // exactly as long as the tensor, so that a sanitizer sees a read past it
  uint64_t matrices = 1;         // of experts
  uint64_t kept = 0;             // of them packed at once

  WeightView view() const {
    WeightView view{"weight", type, rows, cols, bytes.data(), bytes.size()};
    view.matrices = matrices, view.kept = kept;
    return view;
  }
  /// [cols] of one row.
  std::vector<float> row(uint64_t index) const {
    std::vector<float> values(cols);
    dequantise_row(type, bytes.data() + index * row_bytes(type, cols), values.data(), cols);
    return values;
  }
  /// Like row(), but each value is the sum of the sizes of its terms: a Q4_1 value is scale * q + minimum, and a kernel
  /// may keep the two apart, with their rounding errors.
  std::vector<float> row_magnitudes(uint64_t index) const;
};

/// One scale in eight is negative, one in thirty-two zero; every nibble and every int8, -128 too, comes up.
inline uint16_t random_scale(Random& random) {
  const uint32_t kind = random.below(32);
  const float size = 0.01f + 0.04f * std::fabs(random.unit());
  return f32_to_f16(kind == 0 ? 0 : kind < 5 ? -size : size);
}

// A random block of each format.
inline void randomise(BlockF32& block, Random& random) { block.value = random.unit(); }
inline void randomise(BlockF16& block, Random& random) { block.bits = f32_to_f16(random.unit()); }
inline void randomise(BlockBF16& block, Random& random) { block.bits = f32_to_bf16(random.unit()); }
inline void randomise(BlockQ8_0& block, Random& random) {
  block.scale = f32_to_f16(f16_to_f32(random_scale(random)) / 8);
  for (int8_t& value : block.values) value = static_cast<int8_t>(random.below(256));
}
inline void randomise(BlockQ4_1& block, Random& random) {
  block.scale = random_scale(random), block.minimum = f32_to_f16(0.4f * random.unit());
  for (uint8_t& nibbles : block.nibbles) nibbles = static_cast<uint8_t>(random.below(256));
}
inline void randomise(BlockQ4_0& block, Random& random) {
  block.scale = random_scale(random);
  for (uint8_t& nibbles : block.nibbles) nibbles = static_cast<uint8_t>(random.below(256));
}

template <size_t n, class Byte>
void randomise_bytes(Byte (&bytes)[n], Random& random) {
  for (Byte& byte : bytes) byte = static_cast<Byte>(random.below(256));
}
inline void randomise(BlockQ5_0& block, Random& random) {
  block.scale = random_scale(random);
  randomise_bytes(block.high, random), randomise_bytes(block.nibbles, random);
}
inline void randomise(BlockQ5_1& block, Random& random) {
  block.scale = random_scale(random), block.minimum = f32_to_f16(0.4f * random.unit());
  randomise_bytes(block.high, random), randomise_bytes(block.nibbles, random);
}
inline void randomise(BlockIQ4_NL& block, Random& random) {
  block.scale = f32_to_f16(f16_to_f32(random_scale(random)) / 8);
  randomise_bytes(block.nibbles, random);
}
inline void randomise(BlockMXFP4& block, Random& random) {
  block.exponent = static_cast<uint8_t>(118 + random.below(6));
  randomise_bytes(block.nibbles, random);
}
// The scales of a block's groups multiply its own: 1/32 of the others' keeps values of one size.
inline uint16_t random_block_scale(Random& random) { return f32_to_f16(f16_to_f32(random_scale(random)) / 32); }
inline void randomise(BlockQ6_K& block, Random& random) {
  block.scale = f32_to_f16(f16_to_f32(random_block_scale(random)) / 4);
  randomise_bytes(block.scales, random), randomise_bytes(block.high, random), randomise_bytes(block.nibbles, random);
}
inline void randomise(BlockQ5_K& block, Random& random) {
  block.scale = random_block_scale(random), block.minimum = random_block_scale(random);
  randomise_bytes(block.scales, random), randomise_bytes(block.high, random), randomise_bytes(block.nibbles, random);
}
inline void randomise(BlockQ4_K& block, Random& random) {
  block.scale = random_block_scale(random), block.minimum = random_block_scale(random);
  randomise_bytes(block.scales, random), randomise_bytes(block.nibbles, random);
}
inline void randomise(BlockQ3_K& block, Random& random) {
  block.scale = random_block_scale(random);
  randomise_bytes(block.scales, random), randomise_bytes(block.high, random), randomise_bytes(block.crumbs, random);
}
inline void randomise(BlockQ2_K& block, Random& random) {
  block.scale = random_block_scale(random), block.minimum = random_block_scale(random);
  randomise_bytes(block.scales, random), randomise_bytes(block.crumbs, random);
}
inline void randomise(BlockIQ4_XS& block, Random& random) {
  block.scale = f32_to_f16(f16_to_f32(random_block_scale(random)) / 8);
  block.high = static_cast<uint16_t>(random.below(65536));
  randomise_bytes(block.scales, random), randomise_bytes(block.nibbles, random);
}

inline void randomise(BlockIQ2_XXS& block, Random& random) {
  block.scale = random_block_scale(random), randomise_bytes(block.codes, random);
}
inline void randomise(BlockIQ2_XS& block, Random& random) {
  block.scale = random_block_scale(random);
  for (uint16_t& code : block.codes) code = static_cast<uint16_t>(random.below(65536));
  randomise_bytes(block.scales, random);
}
inline void randomise(BlockIQ2_S& block, Random& random) {
  block.scale = random_block_scale(random), randomise_bytes(block.low, random), randomise_bytes(block.high, random);
  randomise_bytes(block.signs, random), randomise_bytes(block.scales, random);
}
inline void randomise(BlockIQ3_XXS& block, Random& random) {
  block.scale = random_block_scale(random), randomise_bytes(block.codes, random), randomise_bytes(block.signs, random);
}
inline void randomise(BlockIQ3_S& block, Random& random) {
  block.scale = random_block_scale(random), randomise_bytes(block.low, random), randomise_bytes(block.high, random);
  randomise_bytes(block.signs, random), randomise_bytes(block.scales, random);
}

/// The block with each term of its values positive. Of a format whose values are one term: the block itself.
template <class Block>
Block with_positive_terms(const Block& block) {
  return block;
}
inline BlockQ4_1 with_positive_terms(BlockQ4_1 block) {
  block.scale &= 0x7fff, block.minimum &= 0x7fff;
  return block;
}
inline BlockQ5_1 with_positive_terms(BlockQ5_1 block) {
  block.scale &= 0x7fff, block.minimum &= 0x7fff;
  return block;
}
/// Of a minimum that is taken off: negative, so that it is added.
template <class Block>
Block with_minimum_added(Block block) {
  block.scale &= 0x7fff, block.minimum |= 0x8000;
  return block;
}
inline BlockQ5_K with_positive_terms(const BlockQ5_K& block) { return with_minimum_added(block); }
inline BlockQ4_K with_positive_terms(const BlockQ4_K& block) { return with_minimum_added(block); }
inline BlockQ2_K with_positive_terms(const BlockQ2_K& block) { return with_minimum_added(block); }

template <class Block, uint32_t elements>
void add_magnitudes(const std::byte* row, uint64_t cols, std::vector<float>& to) {
  for (uint64_t i = 0; i < cols / elements; ++i) {
    Block block;
    std::memcpy(&block, row + i * sizeof block, sizeof block);
    dequantise(with_positive_terms(block), to.data() + i * elements);
  }
  for (float& value : to) value = std::fabs(value);
}

inline std::vector<float> WeightData::row_magnitudes(uint64_t index) const {
  std::vector<float> values(cols);
  const std::byte* row = bytes.data() + index * row_bytes(type, cols);
#define FOUNDRY_MAGNITUDES(name, Name, number, elements, ...) \
  case DType::name:                                           \
    add_magnitudes<Block##Name, elements>(row, cols, values); \
    break;
  switch (type) { FOUNDRY_FORMATS(FOUNDRY_MAGNITUDES) }
#undef FOUNDRY_MAGNITUDES
  return values;
}

template <class Block>
void randomise_blocks(Random& random, std::vector<std::byte>& bytes) {
  for (uint64_t at = 0; at < bytes.size(); at += sizeof(Block)) {
    Block block;
    randomise(block, random);
    std::memcpy(bytes.data() + at, &block, sizeof block);
  }
}

inline WeightData random_weight(Random& random, DType type, uint64_t rows, uint64_t cols) {
  WeightData data{type, rows, cols, std::vector<std::byte>(rows * row_bytes(type, cols))};
#define FOUNDRY_RANDOM(name, Name, ...)                \
  case DType::name:                                    \
    randomise_blocks<Block##Name>(random, data.bytes); \
    break;
  switch (type) { FOUNDRY_FORMATS(FOUNDRY_RANDOM) }
#undef FOUNDRY_RANDOM
  return data;
}

inline WeightData weight_from(const std::vector<float>& values, uint64_t rows, uint64_t cols) {
  WeightData data{DType::f32, rows, cols, std::vector<std::byte>(values.size() * sizeof(float))};
  if (!values.empty()) std::memcpy(data.bytes.data(), values.data(), data.bytes.size());
  return data;
}

}  // namespace foundry::kernel_tests
