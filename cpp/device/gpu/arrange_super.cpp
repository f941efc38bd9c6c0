#include "device/gpu/arrange_super.h"

#include <cstring>

#include "device/gpu/arrange.h"
#include "quant_blocks.h"

namespace foundry {
namespace {

constexpr uint32_t kLow = 0x0f0f0f0f;

uint32_t load(const uint8_t* from) {
  uint32_t word;
  std::memcpy(&word, from, 4);
  return word;
}
void store(std::byte* to, uint32_t word) { std::memcpy(to, &word, 4); }

/// Two blocks of a quarter: 64 nibbles of one half of the bytes, or a block of either half.
struct Nibbles {
  const uint8_t* first;
  const uint8_t* second;
  bool first_is_high, second_is_high;
};
void arrange_nibbles(const Nibbles& of, std::byte* to) {
  for (uint32_t lane = 0; lane < 4; ++lane)
    for (uint32_t block = 0; block < 2; ++block) {
      const uint8_t* from = (block == 0 ? of.first : of.second) + lane * 4;
      const uint32_t a = load(from), b = load(from + 16);
      const bool high = block == 0 ? of.first_is_high : of.second_is_high;
      store(to + lane * 8 + block * 4, high ? (a >> 4 & kLow) | (b & ~kLow) : (a & kLow) | (b & kLow) << 4);
    }
}

/// Row `row` of sixteen, whose blocks lie from `to` on.
void arrange_block(const BlockQ4_K& block, uint64_t row, std::byte* to) {
  for (uint64_t quarter = 0; quarter < 4; ++quarter) {
    const uint8_t* nibbles = block.nibbles + quarter * 32;
    arrange_nibbles({nibbles, nibbles, false, true}, to + quarter * 512 + row * 32);
  }
  std::memcpy(to + 2048 + row * 16, &block, 16);
}

void arrange_block(const BlockQ6_K& block, uint64_t row, std::byte* to) {
  for (uint64_t quarter = 0; quarter < 4; ++quarter) {
    std::byte* at = to + quarter * 832;
    const uint8_t* nibbles = block.nibbles + quarter / 2 * 64;
    const bool high = quarter % 2 != 0;
    arrange_nibbles({nibbles, nibbles + 32, high, high}, at + row * 32);
    for (uint32_t lane = 0; lane < 4; ++lane) {
      uint32_t word = 0;
      for (uint32_t four = 0; four < 4; ++four) {  // of a lane's: two of the first block, two of the second
        const uint8_t* from = block.high + quarter / 2 * 32 + four % 2 * 16 + lane * 4;
        const uint32_t bits = load(from) >> (quarter % 2 * 4 + four / 2 * 2);
        word |= (bits & 0x00030003) << (four * 4) | (bits >> 8 & 0x00030003) << (four * 4 + 2);
      }
      store(at + 512 + row * 16 + lane * 4, word);
    }
    std::memcpy(at + 768 + row * 4, block.scales + quarter * 4, 4);
  }
  std::memcpy(to + 3328 + row * 2, &block.scale, 2);
}

template <class Block>
void arrange_all(uint64_t row, std::span<const std::byte> from, std::span<std::byte> to) {
  const uint64_t blocks = row / sizeof(Block);
  for (uint64_t r = 0; r < from.size() / row; ++r)
    for (uint64_t b = 0; b < blocks; ++b) {
      Block block;
      std::memcpy(&block, from.data() + r * row + b * sizeof block, sizeof block);
      const uint64_t group = r / kArrangedRows * blocks + b;
      arrange_block(block, r % kArrangedRows, to.data() + group * kArrangedRows * sizeof block);
    }
}

}  // namespace

void arrange_super(DType type, uint64_t row, std::span<const std::byte> from, std::span<std::byte> to) {
  if (type == DType::q4_k)
    arrange_all<BlockQ4_K>(row, from, to);
  else
    arrange_all<BlockQ6_K>(row, from, to);
}

}  // namespace foundry
