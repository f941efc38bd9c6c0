// Rows of values in each type (quant_blocks.h), read one at a time or eight neighbours at once: `eight`, or `units`, which are
// whole numbers of at most 128 where the type is quantised. Rows begin at multiples of a block, plain ones of 16 bytes where eight
// are read.
#pragma once

/// x = scale * unit + minimum.
struct Affine {
  float scale, minimum;
};

struct F32 {
  static METAL_FUNC ulong bytes(uint n) { return ulong(n) * 4; }
  static METAL_FUNC float value(device const uchar* row, uint i) { return ((device const float*)row)[i]; }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    device const float4* at = (device const float4*)(row + ulong(i) * 4);
    const float4 a = at[0], b = at[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    eight(row, i, x);
    return Affine{1.0f, 0.0f};
  }
};

METAL_FUNC float wide_half(uint bits) { return float(as_type<half>(ushort(bits))); }
METAL_FUNC float wide_bfloat(uint bits) { return as_type<float>(bits << 16); }

struct F16 {
  static METAL_FUNC ulong bytes(uint n) { return ulong(n) * 2; }
  static METAL_FUNC float value(device const uchar* row, uint i) { return wide_half(((device const ushort*)row)[i]); }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    const uint4 a = *(device const uint4*)(row + ulong(i) * 2);
    x[0] = wide_half(a.x & 0xffffu), x[1] = wide_half(a.x >> 16), x[2] = wide_half(a.y & 0xffffu);
    x[3] = wide_half(a.y >> 16), x[4] = wide_half(a.z & 0xffffu), x[5] = wide_half(a.z >> 16);
    x[6] = wide_half(a.w & 0xffffu), x[7] = wide_half(a.w >> 16);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    eight(row, i, x);
    return Affine{1.0f, 0.0f};
  }
};

struct BF16 {
  static METAL_FUNC ulong bytes(uint n) { return ulong(n) * 2; }
  static METAL_FUNC float value(device const uchar* row, uint i) { return wide_bfloat(((device const ushort*)row)[i]); }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    const uint4 a = *(device const uint4*)(row + ulong(i) * 2);
    x[0] = wide_bfloat(a.x & 0xffffu), x[1] = wide_bfloat(a.x >> 16), x[2] = wide_bfloat(a.y & 0xffffu);
    x[3] = wide_bfloat(a.y >> 16), x[4] = wide_bfloat(a.z & 0xffffu), x[5] = wide_bfloat(a.z >> 16);
    x[6] = wide_bfloat(a.w & 0xffffu), x[7] = wide_bfloat(a.w >> 16);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    eight(row, i, x);
    return Affine{1.0f, 0.0f};
  }
};

struct Q8_0 {
  static METAL_FUNC ulong bytes(uint n) { return ulong(n / 32) * sizeof(BlockQ8_0); }
  static METAL_FUNC float value(device const uchar* row, uint i) {
    device const BlockQ8_0& block = ((device const BlockQ8_0*)row)[i / 32];
    return wide_half(block.scale) * float(block.values[i % 32]);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    device const BlockQ8_0& block = ((device const BlockQ8_0*)row)[i / 32];
    device const ushort* pairs = (device const ushort*)(block.values + i % 32);
    for (uint j = 0; j < 4; ++j) {
      const uint two = pairs[j];
      x[2 * j] = float(int(two << 24) >> 24);
      x[2 * j + 1] = float(int(two << 16) >> 24);
    }
    return Affine{wide_half(block.scale), 0.0f};
  }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    const Affine of = units(row, i, x);
    for (uint j = 0; j < 8; ++j) x[j] = of.scale * x[j];
  }
};

struct Q4_0 {
  static METAL_FUNC ulong bytes(uint n) { return ulong(n / 32) * sizeof(BlockQ4_0); }
  static METAL_FUNC float value(device const uchar* row, uint i) {
    device const BlockQ4_0& block = ((device const BlockQ4_0*)row)[i / 32];
    const uint both = block.nibbles[i % 16];
    return wide_half(block.scale) * float(int(i % 32 < 16 ? both & 15u : both >> 4) - 8);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    device const BlockQ4_0& block = ((device const BlockQ4_0*)row)[i / 32];
    device const ushort* pairs = (device const ushort*)(block.nibbles + i % 16);
    const uint shift = i % 32 < 16 ? 0u : 4u;
    for (uint j = 0; j < 4; ++j) {
      const uint two = uint(pairs[j]) >> shift;
      x[2 * j] = float(int(two & 15u) - 8);
      x[2 * j + 1] = float(int(two >> 8 & 15u) - 8);
    }
    return Affine{wide_half(block.scale), 0.0f};
  }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    const Affine of = units(row, i, x);
    for (uint j = 0; j < 8; ++j) x[j] = of.scale * x[j];
  }
};

struct Q4_1 {
  static METAL_FUNC ulong bytes(uint n) { return ulong(n / 32) * sizeof(BlockQ4_1); }
  static METAL_FUNC float value(device const uchar* row, uint i) {
    device const BlockQ4_1& block = ((device const BlockQ4_1*)row)[i / 32];
    const uint both = block.nibbles[i % 16];
    return wide_half(block.scale) * float(i % 32 < 16 ? both & 15u : both >> 4) + wide_half(block.minimum);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    device const BlockQ4_1& block = ((device const BlockQ4_1*)row)[i / 32];
    device const ushort* pairs = (device const ushort*)(block.nibbles + i % 16);
    const uint shift = i % 32 < 16 ? 0u : 4u;
    for (uint j = 0; j < 4; ++j) {
      const uint two = uint(pairs[j]) >> shift;
      x[2 * j] = float(two & 15u);
      x[2 * j + 1] = float(two >> 8 & 15u);
    }
    return Affine{wide_half(block.scale), wide_half(block.minimum)};
  }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    const Affine of = units(row, i, x);
    for (uint j = 0; j < 8; ++j) x[j] = of.scale * x[j] + of.minimum;
  }
};
