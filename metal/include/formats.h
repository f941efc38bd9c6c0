// Rows of values in each format of formats.def (blocks: quant_blocks.h). A format is a struct with
//   value   one value
//   eight   eight neighbours at once
//   units   the same before scale and minimum: whole numbers of at most 128 where the format is quantised
//   kHalves, kScaled, kMinimum
//           how linear_tiles stages it: halves that hold a value; whether blocks are scaled up first; whether it has
//           minima
//   put     where it keeps K and V: writes a block of a row
//   fetch, widen
//           of those that attention_decode has instances for: eight neighbours as they lie in memory, and their values
// Rows begin at multiples of a block, plain ones of 16 bytes where eight are read.
#pragma once

/// x = scale * unit + minimum.
struct Affine {
  float scale, minimum;
};

METAL_FUNC float wide_half(uint bits) { return float(as_type<half>(ushort(bits))); }
METAL_FUNC float wide_bfloat(uint bits) { return as_type<float>(bits << 16); }

/// The largest |x| of 32, with its sign; NaN where a value is not finite.
METAL_FUNC float largest(device const float* x) {
  float most = 0.0f, nothing = 0.0f;
  for (uint i = 0; i < 32; ++i) {
    nothing += x[i] * 0.0f;
    most = abs(x[i]) > abs(most) ? x[i] : most;
  }
  return nothing == 0.0f ? most : nothing;
}

struct F32 {
  static constant constexpr uint kHalves = 2;
  static constant constexpr bool kScaled = true, kMinimum = false;
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
  static METAL_FUNC void put(device uchar* row, uint block, device const float* x) {
    ((device float*)row)[block] = x[block];
  }
};

struct F16 {
  static constant constexpr uint kHalves = 1;
  static constant constexpr bool kScaled = false, kMinimum = false;
  static METAL_FUNC float value(device const uchar* row, uint i) { return wide_half(((device const ushort*)row)[i]); }
  struct Fetched {
    uint4 halves;
  };
  static METAL_FUNC Fetched fetch(device const uchar* row, uint i) {
    Fetched fetched;
    fetched.halves = *(device const uint4*)(row + ulong(i) * 2);
    return fetched;
  }
  static METAL_FUNC void widen(Fetched fetched, thread float* x) {
    const uint4 a = fetched.halves;
    x[0] = wide_half(a.x & 0xffffu), x[1] = wide_half(a.x >> 16), x[2] = wide_half(a.y & 0xffffu);
    x[3] = wide_half(a.y >> 16), x[4] = wide_half(a.z & 0xffffu), x[5] = wide_half(a.z >> 16);
    x[6] = wide_half(a.w & 0xffffu), x[7] = wide_half(a.w >> 16);
  }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) { widen(fetch(row, i), x); }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    eight(row, i, x);
    return Affine{1.0f, 0.0f};
  }
  static METAL_FUNC void put(device uchar* row, uint block, device const float* x) {
    ((device half*)row)[block] = half(x[block]);
  }
};

struct BF16 {
  static constant constexpr uint kHalves = 1;
  static constant constexpr bool kScaled = true, kMinimum = false;
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
  static METAL_FUNC void put(device uchar* row, uint block, device const float* x) {
    const uint bits = as_type<uint>(x[block]);
    const uint nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    ((device ushort*)row)[block] = ushort((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : nearest);
  }
};

struct Q8_0 {
  static constant constexpr uint kHalves = 1;
  static constant constexpr bool kScaled = false, kMinimum = false;
  static METAL_FUNC float value(device const uchar* row, uint i) {
    device const BlockQ8_0& block = ((device const BlockQ8_0*)row)[i / 32];
    return wide_half(block.scale) * float(block.values[i % 32]);
  }
  struct Fetched {
    ushort scale, pairs[4];
  };
  static METAL_FUNC Fetched fetch(device const uchar* row, uint i) {
    device const BlockQ8_0& block = ((device const BlockQ8_0*)row)[i / 32];
    device const ushort* pairs = (device const ushort*)(block.values + i % 32);
    Fetched fetched;
    fetched.scale = block.scale;
    UNROLL
    for (uint j = 0; j < 4; ++j) fetched.pairs[j] = pairs[j];
    return fetched;
  }
  static METAL_FUNC Affine units(Fetched fetched, thread float* x) {
    UNROLL
    for (uint j = 0; j < 4; ++j) {
      const uint two = fetched.pairs[j];
      x[2 * j] = float(int(two << 24) >> 24);
      x[2 * j + 1] = float(int(two << 16) >> 24);
    }
    return Affine{wide_half(fetched.scale), 0.0f};
  }
  static METAL_FUNC void widen(Fetched fetched, thread float* x) {
    const Affine of = units(fetched, x);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = of.scale * x[j];
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) { return units(fetch(row, i), x); }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) { widen(fetch(row, i), x); }
  static METAL_FUNC void put(device uchar* row, uint at, device const float* x) {
    device BlockQ8_0& block = ((device BlockQ8_0*)row)[at];
    const float most = largest(x + 32 * at);
    const half scale = half(precise::divide(abs(most), 127.0f));
    const float rounded = float(scale), inverse = rounded == 0.0f ? 0.0f : precise::divide(1.0f, rounded);
    block.scale = isnan(most) ? u16(0x7e00) : as_type<ushort>(scale);
    for (uint i = 0; i < 32; ++i)
      block.values[i] = isnan(most) ? i8(0) : i8(clamp(rint(x[32 * at + i] * inverse), -127.0f, 127.0f));
  }
};

struct Q4_1 {
  static constant constexpr uint kHalves = 1;
  static constant constexpr bool kScaled = false, kMinimum = true;
  static METAL_FUNC float value(device const uchar* row, uint i) {
    device const BlockQ4_1& block = ((device const BlockQ4_1*)row)[i / 32];
    const uint both = block.nibbles[i % 16];
    return wide_half(block.scale) * float(i % 32 < 16 ? both & 15u : both >> 4) + wide_half(block.minimum);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    device const BlockQ4_1& block = ((device const BlockQ4_1*)row)[i / 32];
    device const ushort* pairs = (device const ushort*)(block.nibbles + i % 16);
    const uint shift = i % 32 < 16 ? 0u : 4u;
    UNROLL
    for (uint j = 0; j < 4; ++j) {
      const uint two = uint(pairs[j]) >> shift;
      x[2 * j] = float(two & 15u);
      x[2 * j + 1] = float(two >> 8 & 15u);
    }
    return Affine{wide_half(block.scale), wide_half(block.minimum)};
  }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    const Affine of = units(row, i, x);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = of.scale * x[j] + of.minimum;
  }
};

struct Q4_0 {
  static constant constexpr uint kHalves = 1;
  static constant constexpr bool kScaled = false, kMinimum = false;
  static METAL_FUNC float value(device const uchar* row, uint i) {
    device const BlockQ4_0& block = ((device const BlockQ4_0*)row)[i / 32];
    const uint both = block.nibbles[i % 16];
    return wide_half(block.scale) * float(int(i % 32 < 16 ? both & 15u : both >> 4) - 8);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    device const BlockQ4_0& block = ((device const BlockQ4_0*)row)[i / 32];
    device const ushort* pairs = (device const ushort*)(block.nibbles + i % 16);
    const uint shift = i % 32 < 16 ? 0u : 4u;
    UNROLL
    for (uint j = 0; j < 4; ++j) {
      const uint two = uint(pairs[j]) >> shift;
      x[2 * j] = float(int(two & 15u) - 8);
      x[2 * j + 1] = float(int(two >> 8 & 15u) - 8);
    }
    return Affine{wide_half(block.scale), 0.0f};
  }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    const Affine of = units(row, i, x);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = of.scale * x[j];
  }
  static METAL_FUNC uint nibble(float x, float inverse) { return uint(clamp(rint(x * inverse) + 8.0f, 0.0f, 15.0f)); }
  static METAL_FUNC void put(device uchar* row, uint at, device const float* x) {
    device BlockQ4_0& block = ((device BlockQ4_0*)row)[at];
    const float most = largest(x + 32 * at);
    const half scale = half(precise::divide(most, -8.0f));
    const float rounded = float(scale), inverse = rounded == 0.0f ? 0.0f : precise::divide(1.0f, rounded);
    block.scale = isnan(most) ? u16(0x7e00) : as_type<ushort>(scale);
    for (uint i = 0; i < 16; ++i) {
      const uint low = nibble(x[32 * at + i], inverse), high = nibble(x[32 * at + 16 + i], inverse);
      block.nibbles[i] = isnan(most) ? u8(0x88) : u8(low | high << 4);
    }
  }
};

/// Formats that are read a code at a time: `code` is the whole number that a value has, `affine` what it is scaled
/// with.
template <class Of, class Block, uint kValues>
struct Coded {
  static constant constexpr uint kHalves = 1;
  static constant constexpr bool kScaled = false, kMinimum = false;
  static METAL_FUNC device const Block& block_of(device const uchar* row, uint i) {
    return ((device const Block*)row)[i / kValues];
  }
  static METAL_FUNC float scaled(Affine of, int code) {
    return Of::kMinimum ? of.scale * float(code) + of.minimum : of.scale * float(code);
  }
  static METAL_FUNC float value(device const uchar* row, uint i) {
    device const Block& block = block_of(row, i);
    return scaled(Of::affine(block, i % kValues), Of::code(block, i % kValues));
  }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    device const Block& block = block_of(row, i);
    const Affine of = Of::affine(block, i % kValues);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = scaled(of, Of::code(block, i % kValues + j));
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    device const Block& block = block_of(row, i);
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = float(Of::code(block, i % kValues + j));
    return Of::affine(block, i % kValues);
  }
};

/// Those whose scales are for 16 values: linear_tiles, which has one for 32, stages values in two halves, as those of
/// F32.
template <class Of, class Block>
struct CodedBySixteen : Coded<Of, Block, 256> {
  static constant constexpr uint kHalves = 2;
  static constant constexpr bool kScaled = true;
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    Coded<Of, Block, 256>::eight(row, i, x);
    return Affine{1.0f, 0.0f};
  }
};

/// Code j of 32 in 16 bytes: low halves, then high ones. Likewise of 2n in n.
METAL_FUNC uint nibble_of(device const u8* nibbles, uint j, uint n) {
  return j < n ? nibbles[j] & 15u : uint(nibbles[j - n]) >> 4;
}
METAL_FUNC int iq4_value(uint code) {
  const i8 values[16] = {FOUNDRY_IQ4_VALUES};
  return values[code];
}
METAL_FUNC int mxfp4_value(uint code) {
  const i8 values[16] = {FOUNDRY_MXFP4_VALUES};
  return values[code];
}
/// Q5_K's and Q4_K's scale and minimum of group g of 32.
METAL_FUNC uint six_bit_scale(device const u8* bytes, uint g) {
  return g < 4 ? bytes[g] & 63u : (bytes[g + 4] & 15u) | (uint(bytes[g - 4]) >> 6) << 4;
}
METAL_FUNC uint six_bit_minimum(device const u8* bytes, uint g) {
  return g < 4 ? bytes[g + 4] & 63u : uint(bytes[g + 4]) >> 4 | (uint(bytes[g]) >> 6) << 4;
}
/// Q3_K's and Q2_K's low two bits.
METAL_FUNC uint crumb_of(device const u8* crumbs, uint j) {
  return uint(crumbs[j / 128 * 32 + j % 32]) >> (j / 32 % 4 * 2) & 3u;
}

struct Q5_0 : Coded<Q5_0, BlockQ5_0, 32> {
  static METAL_FUNC Affine affine(device const BlockQ5_0& block, uint) { return Affine{wide_half(block.scale), 0.0f}; }
  static METAL_FUNC int code(device const BlockQ5_0& block, uint j) {
    return int(nibble_of(block.nibbles, j, 16) | (uint(block.high[j / 8]) >> (j % 8) & 1u) << 4) - 16;
  }
};

struct Q5_1 : Coded<Q5_1, BlockQ5_1, 32> {
  static constant constexpr bool kMinimum = true;
  static METAL_FUNC Affine affine(device const BlockQ5_1& block, uint) {
    return Affine{wide_half(block.scale), wide_half(block.minimum)};
  }
  static METAL_FUNC int code(device const BlockQ5_1& block, uint j) {
    return int(nibble_of(block.nibbles, j, 16) | (uint(block.high[j / 8]) >> (j % 8) & 1u) << 4);
  }
};

struct IQ4_NL : Coded<IQ4_NL, BlockIQ4_NL, 32> {
  static METAL_FUNC Affine affine(device const BlockIQ4_NL& block, uint) {
    return Affine{wide_half(block.scale), 0.0f};
  }
  static METAL_FUNC int code(device const BlockIQ4_NL& block, uint j) {
    return iq4_value(nibble_of(block.nibbles, j, 16));
  }
};

struct MXFP4 : Coded<MXFP4, BlockMXFP4, 32> {
  static METAL_FUNC Affine affine(device const BlockMXFP4& block, uint) {
    const uint exponent = block.exponent;
    return Affine{as_type<float>(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23), 0.0f};
  }
  static METAL_FUNC int code(device const BlockMXFP4& block, uint j) {
    return mxfp4_value(nibble_of(block.nibbles, j, 16));
  }
};

struct IQ4_XS : Coded<IQ4_XS, BlockIQ4_XS, 256> {
  static METAL_FUNC Affine affine(device const BlockIQ4_XS& block, uint j) {
    const uint g = j / 32, low = uint(block.scales[g / 2]) >> (g % 2 * 4) & 15u,
               high = uint(block.high) >> (g * 2) & 3u;
    return Affine{wide_half(block.scale) * float(int(low | high << 4) - 32), 0.0f};
  }
  static METAL_FUNC int code(device const BlockIQ4_XS& block, uint j) {
    return iq4_value(nibble_of(block.nibbles + j / 32 * 16, j % 32, 16));
  }
};

struct Q4_K : Coded<Q4_K, BlockQ4_K, 256> {
  static constant constexpr bool kMinimum = true;
  static METAL_FUNC Affine affine(device const BlockQ4_K& block, uint j) {
    return Affine{wide_half(block.scale) * float(six_bit_scale(block.scales, j / 32)),
                  -(wide_half(block.minimum) * float(six_bit_minimum(block.scales, j / 32)))};
  }
  static METAL_FUNC int code(device const BlockQ4_K& block, uint j) {
    return int(nibble_of(block.nibbles + j / 64 * 32, j % 64, 32));
  }
};

struct Q5_K : Coded<Q5_K, BlockQ5_K, 256> {
  static constant constexpr bool kMinimum = true;
  static METAL_FUNC Affine affine(device const BlockQ5_K& block, uint j) {
    return Affine{wide_half(block.scale) * float(six_bit_scale(block.scales, j / 32)),
                  -(wide_half(block.minimum) * float(six_bit_minimum(block.scales, j / 32)))};
  }
  static METAL_FUNC int code(device const BlockQ5_K& block, uint j) {
    return int(nibble_of(block.nibbles + j / 64 * 32, j % 64, 32) | (uint(block.high[j % 32]) >> (j / 32) & 1u) << 4);
  }
};

struct Q6_K : CodedBySixteen<Q6_K, BlockQ6_K> {
  static METAL_FUNC Affine affine(device const BlockQ6_K& block, uint j) {
    return Affine{wide_half(block.scale) * float(block.scales[j / 16]), 0.0f};
  }
  static METAL_FUNC int code(device const BlockQ6_K& block, uint j) {
    const uint high = uint(block.high[j / 128 * 32 + j % 32]) >> (j / 32 % 4 * 2) & 3u;
    return int(nibble_of(block.nibbles + j / 128 * 64, j % 128, 64) | high << 4) - 32;
  }
};

struct Q3_K : CodedBySixteen<Q3_K, BlockQ3_K> {
  static METAL_FUNC Affine affine(device const BlockQ3_K& block, uint j) {
    const uint g = j / 16, low = uint(block.scales[g % 8]) >> (g / 8 * 4) & 15u;
    const uint high = uint(block.scales[8 + g % 4]) >> (g / 4 * 2) & 3u;
    return Affine{wide_half(block.scale) * float(int(low | high << 4) - 32), 0.0f};
  }
  static METAL_FUNC int code(device const BlockQ3_K& block, uint j) {
    return int(crumb_of(block.crumbs, j) | (uint(block.high[j % 32]) >> (j / 32) & 1u) << 2) - 4;
  }
};

/// Its minima are part of the values: kMinimum is about what linear_tiles adds.
struct Q2_K {
  static constant constexpr uint kHalves = 2;
  static constant constexpr bool kScaled = true, kMinimum = false;
  static METAL_FUNC float value(device const uchar* row, uint i) {
    device const BlockQ2_K& block = ((device const BlockQ2_K*)row)[i / 256];
    const uint scales = block.scales[i % 256 / 16];
    return wide_half(block.scale) * float(scales & 15u) * float(crumb_of(block.crumbs, i % 256)) -
           wide_half(block.minimum) * float(scales >> 4);
  }
  static METAL_FUNC void eight(device const uchar* row, uint i, thread float* x) {
    UNROLL
    for (uint j = 0; j < 8; ++j) x[j] = value(row, i + j);
  }
  static METAL_FUNC Affine units(device const uchar* row, uint i, thread float* x) {
    eight(row, i, x);
    return Affine{1.0f, 0.0f};
  }
};

/// Elements and bytes of a format's block.
template <class Format>
struct BlockOf;
#define FOUNDRY_BLOCK_OF(name, Name, number, elements, n_bytes, ...) \
  struct Name;                                                       \
  template <>                                                        \
  struct BlockOf<Name> {                                             \
    static constant constexpr uint kElements = elements;             \
    static constant constexpr ulong kBytes = n_bytes;                \
  };
FOUNDRY_FORMATS(FOUNDRY_BLOCK_OF)
#undef FOUNDRY_BLOCK_OF

/// Bytes of n values of a row.
template <class Format>
METAL_FUNC ulong row_bytes(uint n) {
  return ulong(n / BlockOf<Format>::kElements) * BlockOf<Format>::kBytes;
}
