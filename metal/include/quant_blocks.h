// Blocks as they lie in a GGUF file, a struct for each format of formats.def, for every language that reads them (C++,
// MSL, CUDA). Scales are f16 bits, little endian; no struct holds padding. A plain format's block is one value. Of the
// others these hold 32 consecutive values of a row:
//   Q8_0  x[i] = scale * q[i]
//   Q4_0  x[i] = scale * (q[i] - 8)                  Q4_1  x[i] = scale * q[i] + minimum
//   Q5_0  x[i] = scale * (q[i] - 16)                 Q5_1  x[i] = scale * q[i] + minimum
//   IQ4_NL  x[i] = scale * IQ4_VALUES[q[i]]          MXFP4  x[i] = 2^(exponent - 128) * MXFP4_VALUES[q[i]]
// They keep the low four bits of q[i] in the low half of nibbles[i] and those of q[i + 16] in its high half, for i in
// 0 .. 15; Q5's fifth bit of q[i] is bit i % 8 of high[i / 8]. And these hold 256 values, in groups with whole numbers
// for scales (s) and minima (m) of their own:
//   Q6_K  x[i] = scale * s[i / 16] * (q[i] - 32)     Q3_K  x[i] = scale * (s[i / 16] - 32) * (q[i] - 4)
//   Q5_K, Q4_K  x[i] = scale * s[i / 32] * q[i] - minimum * m[i / 32]
//   Q2_K  x[i] = scale * s[i / 16] * q[i] - minimum * m[i / 16]
//   IQ4_XS  x[i] = scale * (s[i / 32] - 32) * IQ4_VALUES[q[i]]
// Of IQ2 and IQ3 a code stands for eight values of IQ2_MAGNITUDES, or four of IQ3's, by a grid
// (cpp/formats/iq_grids.h), and each value has a sign; scales are odd: t = 2 s + 1.
//   IQ2_XXS  x[i] = scale * t[i / 32] / 8 * value    IQ2_XS, IQ2_S  x[i] = scale * t[i / 16] / 8 * value
//   IQ3_XXS  x[i] = scale * t[i / 32] / 4 * value    IQ3_S  x[i] = scale * t[i / 32] * value
// Where their bits lie, cpp/formats/codes.cpp says. Source: GGUF specification; the package gguf (quants.py).
#pragma once
#include "formats/formats.def"
#ifdef __METAL_VERSION__
typedef ushort u16;
typedef uchar u8;
typedef signed char i8;
#else
#include <cstdint>
namespace foundry {
using u16 = std::uint16_t;
using u8 = std::uint8_t;
using i8 = std::int8_t;
#endif

struct BlockF32 {
  float value;
};

struct BlockF16 {
  u16 bits;
};

struct BlockBF16 {
  u16 bits;
};

struct BlockQ8_0 {
  u16 scale;
  i8 values[32];
};

struct BlockQ4_1 {
  u16 scale;
  u16 minimum;
  u8 nibbles[16];
};

struct BlockQ4_0 {
  u16 scale;
  u8 nibbles[16];
};

struct BlockQ5_0 {
  u16 scale;
  u8 high[4];
  u8 nibbles[16];
};

struct BlockQ5_1 {
  u16 scale;
  u16 minimum;
  u8 high[4];
  u8 nibbles[16];
};

struct BlockIQ4_NL {
  u16 scale;
  u8 nibbles[16];
};

struct BlockMXFP4 {
  u8 exponent;
  u8 nibbles[16];
};

struct BlockQ6_K {
  u8 nibbles[128];
  u8 high[64];
  i8 scales[16];
  u16 scale;
};

struct BlockQ5_K {
  u16 scale;
  u16 minimum;
  u8 scales[12];
  u8 high[32];
  u8 nibbles[128];
};

struct BlockQ4_K {
  u16 scale;
  u16 minimum;
  u8 scales[12];
  u8 nibbles[128];
};

struct BlockQ3_K {
  u8 high[32];
  u8 crumbs[64];
  u8 scales[12];
  u16 scale;
};

struct BlockQ2_K {
  u8 scales[16];
  u8 crumbs[64];
  u16 scale;
  u16 minimum;
};

struct BlockIQ4_XS {
  u16 scale;
  u16 high;
  u8 scales[4];
  u8 nibbles[128];
};

struct BlockIQ2_XXS {
  u16 scale;
  u8 codes[64];  // for each 32 values: four codes, then four times seven bits of signs and four of the scale
};

struct BlockIQ2_XS {
  u16 scale;
  u16 codes[32];  // nine bits, and seven of signs
  u8 scales[8];
};

struct BlockIQ2_S {
  u16 scale;
  u8 low[32];
  u8 signs[32];
  u8 high[8];
  u8 scales[8];
};

struct BlockIQ3_XXS {
  u16 scale;
  u8 codes[64];
  u8 signs[32];  // for each 32 values: four times seven bits of signs and four of the scale
};

struct BlockIQ3_S {
  u16 scale;
  u8 low[64];
  u8 high[8];
  u8 signs[32];
  u8 scales[4];
};

// What the codes of the formats with a table stand for; MXFP4's are twice E2M1 (OCP Microscaling Formats 1.0).
#define FOUNDRY_IQ4_VALUES -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define FOUNDRY_MXFP4_VALUES 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12

// What grids are made of; IQ2 has three, and a fourth that no grid has.
#define FOUNDRY_IQ2_MAGNITUDES 8, 25, 43, 0
#define FOUNDRY_IQ3_XXS_MAGNITUDES 4, 12, 20, 28, 36, 44, 52, 62
#define FOUNDRY_IQ3_S_MAGNITUDES 1, 3, 5, 7, 9, 11, 13, 15

#define FOUNDRY_ASSERT(name, Name, number, elements, bytes, ...) \
  static_assert(sizeof(Block##Name) == bytes, "Block" #Name " is as long as in the file");
FOUNDRY_FORMATS(FOUNDRY_ASSERT)
#undef FOUNDRY_ASSERT

#ifndef __METAL_VERSION__
}  // namespace foundry
#endif
