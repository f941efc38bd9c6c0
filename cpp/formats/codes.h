// Blocks of quantised values taken apart: what a format's dequantise says in floats, and what the CPU's packers re-lay.
#pragma once
#include <cstdint>

#include "quant_blocks.h"

namespace foundry {

/// What a block holds beside its f16 scale and minimum.
struct Codes {
  uint8_t q[256];      // of each value, as the block's struct says
  int8_t scales[16];   // of each group of a block of 256, what is taken off them taken off
  uint8_t minima[16];  // likewise, where there are minima
};

void take_apart(const BlockQ5_0& block, Codes& to);
void take_apart(const BlockQ5_1& block, Codes& to);
void take_apart(const BlockIQ4_NL& block, Codes& to);
void take_apart(const BlockMXFP4& block, Codes& to);
void take_apart(const BlockQ6_K& block, Codes& to);
void take_apart(const BlockQ5_K& block, Codes& to);
void take_apart(const BlockQ4_K& block, Codes& to);
void take_apart(const BlockQ3_K& block, Codes& to);
void take_apart(const BlockQ2_K& block, Codes& to);
void take_apart(const BlockIQ4_XS& block, Codes& to);
// Of IQ2 and IQ3 a code is the magnitude's place in the format's list, and above that, in bit 2 or 3, the sign.
void take_apart(const BlockIQ2_XXS& block, Codes& to);
void take_apart(const BlockIQ2_XS& block, Codes& to);
void take_apart(const BlockIQ2_S& block, Codes& to);
void take_apart(const BlockIQ3_XXS& block, Codes& to);
void take_apart(const BlockIQ3_S& block, Codes& to);

/// MXFP4's scale, 2^(exponent - 128), as bf16 bits, which hold each of them exactly.
uint16_t mxfp4_scale(uint8_t exponent);

}  // namespace foundry
