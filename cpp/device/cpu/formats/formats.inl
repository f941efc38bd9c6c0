// Part of kernels.inl: what it knows of each format, one file each. Weights are re-laid into panels of kLanes outputs,
// k ascending inside; outputs that fill the last panel up are zero.
//
// A plain format's panel is [k][kLanes] in the format itself. In the others a packed block is kLanes blocks of the
// file. Packed<> says how long it is, makes it, and gives what each `part` of kBlock k holds:
//
//   bytes                             of a packed block
//   pack(blocks, stride, n, to)       makes it of blocks[lane * stride] for n lanes
//   groups(w, part, k)                the quantised values: eight groups of 64 bytes, each four k of every output
//   scale(w, part), minimum(w, part)  of every output; has_minimum says whether there are minima
//   dot(acc, k, q)                    acc and the products of a group with four activations
//   start(q_sum)                      what the sum begins with, where packed values are off by a constant
//
// Kept<> is how attention reads a format that keeps K and V (formats/kv_rows.h has the layout): dot_block() of K,
// value_lanes() of V.

template <DType T>
struct Packed;

template <DType T>
struct Kept;

/// The f16 member of n blocks, one a lane.
template <class Block>
inline void pack_halves(const Block* blocks, uint64_t stride, uint32_t n, uint16_t Block::* member, std::byte* to) {
  uint16_t values[kLanes] = {};
  for (uint32_t lane = 0; lane < n; ++lane) values[lane] = blocks[lane * stride].*member;
  __builtin_memcpy(to, values, sizeof values);
}

/// The file's byte i holds k = i in its low nibble and k = i + 16 in its high one: groups are four of those bytes.
template <class Block>
inline void pack_nibbles(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
  __builtin_memset(to, 0, 256);
  for (uint32_t lane = 0; lane < n; ++lane)
    for (uint32_t group = 0; group < 4; ++group)
      __builtin_memcpy(to + group * 64 + lane * 4, blocks[lane * stride].nibbles + group * 4, 4);
}

inline void nibble_groups(const std::byte* groups, Bytes (&k)[8]) {
  for (uint32_t j = 0; j < 4; ++j) {
    k[j] = load_bytes(groups + 64 * j);
    k[4 + j] = high_nibbles(k[j]);
    k[j] = low_nibbles(k[j]);
  }
}

inline F16 load_halves(const std::byte* p) { return load_f16(reinterpret_cast<const uint16_t*>(p)); }

#include "device/cpu/formats/plain.inl"
#include "device/cpu/formats/q4_0.inl"
#include "device/cpu/formats/q4_1.inl"
#include "device/cpu/formats/q8_0.inl"
