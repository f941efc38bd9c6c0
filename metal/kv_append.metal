// kv_append: a row's K or V into the page of its position, in the page's type (cpp/formats/kv_rows.h has the layout: here a tile is one
// token, so K lies as V does).
#include "kernel.h"
using namespace metal;
#include "formats.h"
#include "sequences.h"

template <class Format>
struct Store;  // one unit of a row: a value, or a block of 32

template <>
struct Store<F32> {
  static METAL_FUNC uint values() { return 1; }
  static METAL_FUNC void put(device uchar* row, uint unit, device const float* x) {
    ((device float*)row)[unit] = x[unit];
  }
};

template <>
struct Store<F16> {
  static METAL_FUNC uint values() { return 1; }
  static METAL_FUNC void put(device uchar* row, uint unit, device const float* x) {
    ((device half*)row)[unit] = half(x[unit]);
  }
};

template <>
struct Store<BF16> {
  static METAL_FUNC uint values() { return 1; }
  static METAL_FUNC void put(device uchar* row, uint unit, device const float* x) {
    const uint bits = as_type<uint>(x[unit]);
    const uint nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    ((device ushort*)row)[unit] = ushort((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : nearest);
  }
};

/// The largest |x| of a block, with its sign; NaN where a value is not finite.
METAL_FUNC float largest(device const float* x) {
  float most = 0.0f, nothing = 0.0f;
  for (uint i = 0; i < 32; ++i) {
    nothing += x[i] * 0.0f;
    most = abs(x[i]) > abs(most) ? x[i] : most;
  }
  return nothing == 0.0f ? most : nothing;
}

template <>
struct Store<Q8_0> {
  static METAL_FUNC uint values() { return 32; }
  static METAL_FUNC void put(device uchar* row, uint unit, device const float* x) {
    device BlockQ8_0& block = ((device BlockQ8_0*)row)[unit];
    const float most = largest(x + 32 * unit);
    const half scale = half(precise::divide(abs(most), 127.0f));
    const float rounded = float(scale), inverse = rounded == 0.0f ? 0.0f : precise::divide(1.0f, rounded);
    block.scale = isnan(most) ? u16(0x7e00) : as_type<ushort>(scale);
    for (uint i = 0; i < 32; ++i)
      block.values[i] = isnan(most) ? i8(0) : i8(clamp(rint(x[32 * unit + i] * inverse), -127.0f, 127.0f));
  }
};

template <>
struct Store<Q4_0> {
  static METAL_FUNC uint values() { return 32; }
  static METAL_FUNC uint nibble(float x, float inverse) { return uint(clamp(rint(x * inverse) + 8.0f, 0.0f, 15.0f)); }
  static METAL_FUNC void put(device uchar* row, uint unit, device const float* x) {
    device BlockQ4_0& block = ((device BlockQ4_0*)row)[unit];
    const float most = largest(x + 32 * unit);
    const half scale = half(precise::divide(most, -8.0f));
    const float rounded = float(scale), inverse = rounded == 0.0f ? 0.0f : precise::divide(1.0f, rounded);
    block.scale = isnan(most) ? u16(0x7e00) : as_type<ushort>(scale);
    for (uint i = 0; i < 16; ++i) {
      const uint low = nibble(x[32 * unit + i], inverse), high = nibble(x[32 * unit + 16 + i], inverse);
      block.nibbles[i] = isnan(most) ? u8(0x88) : u8(low | high << 4);
    }
  }
};

/// Grid: rows. `part` is 0 for K, 1 for V.
template <class Format>
kernel void kv_append(device const float* in [[buffer(0)]], device const Sequence* sequences [[buffer(1)]],
                      constant KvParams& kv [[buffer(2)]], constant AppendParams& p [[buffer(3)]],
                      uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const SequenceRow at = sequence_of(sequences, p.n_sequences, group.x);
  const uint units = kv.head_dim / Store<Format>::values();
  const ulong offset = p.layer * kv.layer_stride_bytes + (p.part == 0 ? 0 : kv.k_part_bytes);
  device uchar* page = at.sequence->pages[at.position / kv.page_tokens].data;
  for (uint i = index; i < kv.n_kv_heads * units; i += 128) {
    const uint head = i / units, unit = i % units;
    device uchar* part = page + offset + head * kv.head_stride_bytes;
    device uchar* row = part + (at.position % kv.page_tokens) * Format::bytes(kv.head_dim);
    Store<Format>::put(row, unit, in + (ulong(group.x) * kv.n_kv_heads + head) * kv.head_dim);
  }
}

instantiate_kernel("kv_append_f32", kv_append, F32);
instantiate_kernel("kv_append_f16", kv_append, F16);
instantiate_kernel("kv_append_bf16", kv_append, BF16);
instantiate_kernel("kv_append_q8_0", kv_append, Q8_0);
instantiate_kernel("kv_append_q4_0", kv_append, Q4_0);
