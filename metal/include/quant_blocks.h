// Blocks as they lie in a GGUF file, a struct for each format of formats.def, for every language that reads them (C++,
// MSL, CUDA). Scales are f16 bits, little endian; structs of several values are 2-byte aligned and hold no padding. A
// plain format's block is one value. Of the others these hold 32 consecutive values of a row:
//   Q8_0  x[i] = scale * q[i]        Q4_1  x[i] = scale * q[i] + minimum        Q4_0  x[i] = scale * (q[i] - 8)
// The 4-bit formats keep q[i] in the low half of nibbles[i] and q[i + 16] in its high half, for i in 0 .. 15.
// Source: GGUF specification.
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

#define FOUNDRY_ASSERT(name, Name, number, elements, bytes, ...) \
  static_assert(sizeof(Block##Name) == bytes, "Block" #Name " is as long as in the file");
FOUNDRY_FORMATS(FOUNDRY_ASSERT)
#undef FOUNDRY_ASSERT

#ifndef __METAL_VERSION__
}  // namespace foundry
#endif
