#include "formats/codes.h"

#include <bit>
#include <cstring>

#include "formats/iq_grids.h"

namespace foundry {
namespace {

/// Bytes of `n` values whose low halves hold the first n codes, and whose high halves the next n.
void put_nibbles(const uint8_t* nibbles, uint32_t n, uint8_t* q) {
  for (uint32_t i = 0; i < n; ++i) {
    q[i] = nibbles[i] & 15;
    q[i + n] = nibbles[i] >> 4;
  }
}

/// Q3_K and Q2_K: two bits of four times 32 values in each 32 bytes, the lowest bits first.
void put_crumbs(const uint8_t* crumbs, uint8_t* q) {
  for (uint32_t part = 0; part < 8; ++part)
    for (uint32_t i = 0; i < 32; ++i) q[part * 32 + i] = crumbs[part / 4 * 32 + i] >> (part % 4 * 2) & 3;
}

/// Bit `part` of byte i belongs to value i of that part of 32.
void add_bits(const uint8_t* bits, uint32_t to_bit, uint8_t* q) {
  for (uint32_t part = 0; part < 8; ++part)
    for (uint32_t i = 0; i < 32; ++i) q[part * 32 + i] |= static_cast<uint8_t>((bits[i] >> part & 1) << to_bit);
}

/// Q5_0 and Q5_1: the fifth bits one after the other.
void add_fifth_bits(const uint8_t* bits, uint8_t* q) {
  for (uint32_t i = 0; i < 32; ++i) q[i] |= static_cast<uint8_t>((bits[i / 8] >> i % 8 & 1) << 4);
}

/// Q5_K and Q4_K: eight scales and eight minima of six bits. The first four of each lie in the low bits of bytes 0 .. 3
/// and 4 .. 7; of the others the low four bits lie in bytes 8 .. 11 and the high two above the first ones.
void put_scales_and_minima(const uint8_t* bytes, Codes& to) {
  for (uint32_t i = 0; i < 4; ++i) {
    to.scales[i] = static_cast<int8_t>(bytes[i] & 63);
    to.minima[i] = bytes[i + 4] & 63;
    to.scales[i + 4] = static_cast<int8_t>((bytes[i + 8] & 15) | (bytes[i] >> 6 << 4));
    to.minima[i + 4] = static_cast<uint8_t>((bytes[i + 8] >> 4) | (bytes[i + 4] >> 6 << 4));
  }
}

/// kCount values of a grid's entry, kBits each, with the signs of the lowest bits of `signs` above them.
template <uint32_t kCount, uint32_t kBits>
void put_grid(uint32_t entry, uint32_t signs, uint8_t* q) {
  for (uint32_t i = 0; i < kCount; ++i)
    q[i] = static_cast<uint8_t>((entry >> (kBits * i) & ((1u << kBits) - 1)) | (signs >> i & 1) << kBits);
}

/// Signs of eight values of which seven are kept: an even number is negative.
uint32_t eight_signs(uint32_t seven) { return seven | static_cast<uint32_t>(std::popcount(seven) & 1) << 7; }

int8_t odd_scale(uint32_t four_bits) { return static_cast<int8_t>(2 * four_bits + 1); }

uint32_t word_at(const uint8_t* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

}  // namespace

void take_apart(const BlockQ5_0& block, Codes& to) {
  put_nibbles(block.nibbles, 16, to.q);
  add_fifth_bits(block.high, to.q);
}

void take_apart(const BlockQ5_1& block, Codes& to) {
  put_nibbles(block.nibbles, 16, to.q);
  add_fifth_bits(block.high, to.q);
}

void take_apart(const BlockIQ4_NL& block, Codes& to) { put_nibbles(block.nibbles, 16, to.q); }
void take_apart(const BlockMXFP4& block, Codes& to) { put_nibbles(block.nibbles, 16, to.q); }

/// Halves of 128 values: low bits in 64 bytes, 64 values in the low halves and 64 in the high ones; the high two bits
/// of four times 32 values in 32 bytes.
void take_apart(const BlockQ6_K& block, Codes& to) {
  for (uint32_t half = 0; half < 2; ++half) {
    uint8_t* q = to.q + half * 128;
    put_nibbles(block.nibbles + half * 64, 64, q);
    for (uint32_t i = 0; i < 128; ++i)
      q[i] |= static_cast<uint8_t>((block.high[half * 32 + i % 32] >> (i / 32 * 2) & 3) << 4);
  }
  for (uint32_t i = 0; i < 16; ++i) to.scales[i] = block.scales[i];
}

void take_apart(const BlockQ5_K& block, Codes& to) {
  for (uint32_t i = 0; i < 4; ++i) put_nibbles(block.nibbles + i * 32, 32, to.q + i * 64);
  add_bits(block.high, 4, to.q);
  put_scales_and_minima(block.scales, to);
}

void take_apart(const BlockQ4_K& block, Codes& to) {
  for (uint32_t i = 0; i < 4; ++i) put_nibbles(block.nibbles + i * 32, 32, to.q + i * 64);
  put_scales_and_minima(block.scales, to);
}

/// Scales of six bits, less 32: the low four of sixteen in the halves of bytes 0 .. 7, the high two in bytes 8 .. 11.
void take_apart(const BlockQ3_K& block, Codes& to) {
  put_crumbs(block.crumbs, to.q);
  add_bits(block.high, 2, to.q);
  for (uint32_t i = 0; i < 16; ++i) {
    const int low = block.scales[i % 8] >> (i / 8 * 4) & 15, high = block.scales[8 + i % 4] >> (i / 4 * 2) & 3;
    to.scales[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

void take_apart(const BlockQ2_K& block, Codes& to) {
  put_crumbs(block.crumbs, to.q);
  for (uint32_t i = 0; i < 16; ++i) {
    to.scales[i] = static_cast<int8_t>(block.scales[i] & 15);
    to.minima[i] = block.scales[i] >> 4;
  }
}

/// Scales of six bits, less 32: the low four in halves of bytes, the high two in two bytes.
void take_apart(const BlockIQ4_XS& block, Codes& to) {
  for (uint32_t i = 0; i < 8; ++i) {
    put_nibbles(block.nibbles + i * 16, 16, to.q + i * 32);
    const int low = block.scales[i / 2] >> (i % 2 * 4) & 15, high = block.high >> (i * 2) & 3;
    to.scales[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

void take_apart(const BlockIQ2_XXS& block, Codes& to) {
  for (uint32_t part = 0; part < 8; ++part) {
    const uint8_t* codes = block.codes + part * 8;
    const uint32_t rest = word_at(codes + 4);
    for (uint32_t i = 0; i < 4; ++i)
      put_grid<8, 2>(kIq2XxsGrid[codes[i]], eight_signs(rest >> (7 * i) & 127), to.q + part * 32 + i * 8);
    to.scales[part] = odd_scale(rest >> 28);
  }
}

void take_apart(const BlockIQ2_XS& block, Codes& to) {
  for (uint32_t i = 0; i < 32; ++i)
    put_grid<8, 2>(kIq2XsGrid[block.codes[i] & 511], eight_signs(block.codes[i] >> 9), to.q + i * 8);
  for (uint32_t i = 0; i < 16; ++i) to.scales[i] = odd_scale(block.scales[i / 2] >> (i % 2 * 4) & 15);
}

void take_apart(const BlockIQ2_S& block, Codes& to) {
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t code = block.low[i] | (block.high[i / 4] >> (i % 4 * 2) & 3) << 8;
    put_grid<8, 2>(kIq2SGrid[code], block.signs[i], to.q + i * 8);
  }
  for (uint32_t i = 0; i < 16; ++i) to.scales[i] = odd_scale(block.scales[i / 2] >> (i % 2 * 4) & 15);
}

void take_apart(const BlockIQ3_XXS& block, Codes& to) {
  for (uint32_t part = 0; part < 8; ++part) {
    const uint32_t rest = word_at(block.signs + part * 4);
    for (uint32_t i = 0; i < 8; ++i)
      put_grid<4, 3>(kIq3XxsGrid[block.codes[part * 8 + i]], eight_signs(rest >> (i / 2 * 7) & 127) >> (i % 2 * 4),
                     to.q + part * 32 + i * 4);
    to.scales[part] = odd_scale(rest >> 28);
  }
}

void take_apart(const BlockIQ3_S& block, Codes& to) {
  for (uint32_t i = 0; i < 64; ++i) {
    const uint32_t code = block.low[i] | (block.high[i / 8] >> (i % 8) & 1) << 8;
    put_grid<4, 3>(kIq3SGrid[code], static_cast<uint32_t>(block.signs[i / 2]) >> (i % 2 * 4), to.q + i * 4);
  }
  for (uint32_t i = 0; i < 8; ++i) to.scales[i] = odd_scale(block.scales[i / 2] >> (i % 2 * 4) & 15);
}

/// bf16 has f32's exponents: normal ones from 2^-126 on, below them bits of the fraction.
uint16_t mxfp4_scale(uint8_t exponent) {
  return static_cast<uint16_t>(exponent < 2 ? 0x20 << exponent : (exponent - 1) << 7);
}

}  // namespace foundry
