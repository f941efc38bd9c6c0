// Quantised blocks as they lie in a GGUF file, for every language that reads them (C++, MSL, CUDA).
// Each holds 32 consecutive values of a row. Scales are f16 bits, little endian; structs are 2-byte aligned and hold no padding.
//   Q4_0  x[i] = scale * (q[i] - 8)        Q4_1  x[i] = scale * q[i] + minimum        Q8_0  x[i] = scale * q[i]
// The 4-bit types keep q[i] in the low half of nibbles[i] and q[i + 16] in its high half, for i in 0 .. 15.
// Source: GGUF specification and GGML's type numbers.
#pragma once
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

enum { kQuantBlock = 32 };  // values in a block

struct BlockQ4_0 {
  u16 scale;
  u8 nibbles[16];
};

struct BlockQ4_1 {
  u16 scale;
  u16 minimum;
  u8 nibbles[16];
};

struct BlockQ8_0 {
  u16 scale;
  i8 values[32];
};

static_assert(sizeof(BlockQ4_0) == 18, "BlockQ4_0 is 18 bytes in the file");
static_assert(sizeof(BlockQ4_1) == 20, "BlockQ4_1 is 20 bytes in the file");
static_assert(sizeof(BlockQ8_0) == 34, "BlockQ8_0 is 34 bytes in the file");

#ifndef __METAL_VERSION__
}  // namespace foundry
#endif
