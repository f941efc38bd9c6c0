// Part of kernels.inl: what it knows of each format, one file each. Weights are re-laid into panels of kLanes outputs,
// k ascending inside; outputs that fill the last panel up are zero.
//
// A plain format's panel is [k][kLanes] in the format itself. In the others a packed block is kLanes blocks of the
// file. Packed<> says how long it is, makes it, and gives what each `part` of kBlock k holds:
//
//   bytes                             of a packed block
//   pack(blocks, stride, n, to)       makes it of blocks[lane * stride] for n lanes
//   pair<i>(w, part, k)               the quantised values of two groups, 64 bytes each, of four k of every output: for
//                                     i = 0 .. 3 the groups i and i + 4 where kApart is 4, 2i and 2i + 1 where it is 1
//   kHalves                           scales of a part: one for all its k, or two for the first 16 and the last
//   scale(w, part, half), minimum(w, part, half)
//                                     of every output; has_minimum says whether there are minima
//   accumulate(sum, k, four)          adds the products of a group with four activations
//   kMost                             the largest code, where that is by add_codes(); 0 where by add_q8()
//   kOffset                           what packed values are above the codes' own; 0 where they are the same
//
// Kept<> is how attention reads the blocks of a format that keeps K and V (formats/kv_rows.h has the layout):
//
//   kDots                   K is scored by byte dot products with queries in two bytes, or else in f32
//   kFours                  of neighbouring dims that four bytes of K hold: 2 where nibbles of a byte are 16 dims apart
//   fours(bytes, n, k)      those of n tokens, off by kOffset
//   accumulate, kMost       as in Packed<>
//   widen<i>(bytes, n, k)   dim i of those fours, in f32
//   values(bytes, d)        sixteen values of V from dim d of a block on, without its scale

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

/// Groups i and i + 4 of those.
template <uint32_t i>
inline void nibble_pair(const std::byte* groups, Bytes (&k)[2]) {
  const Bytes nibbles = load_bytes(groups + 64 * i);
  k[0] = both(nibbles, each_byte(15));
  k[1] = both(shifted<-4>(nibbles), each_byte(15));
}

/// Sixteen bytes of a table, off by a constant.
struct ByteTable {
  uint8_t bytes[16];
};
constexpr ByteTable with_offset(const int8_t (&values)[16], int offset) {
  ByteTable table{};
  for (uint32_t i = 0; i < 16; ++i) table.bytes[i] = static_cast<uint8_t>(values[i] + offset);
  return table;
}

inline F16 load_halves(const std::byte* p) { return load_f16(reinterpret_cast<const uint16_t*>(p)); }

/// Four bytes of quantised activations. Read where they are used: processors broadcast them on the way from memory.
inline int32_t four(const int8_t* p) {
  int32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return bytes;
}

#include "device/cpu/formats/plain.inl"
#include "device/cpu/formats/planes.inl"
//
#include "device/cpu/formats/grids.inl"
#include "device/cpu/formats/k_quants.inl"
#include "device/cpu/formats/q4_0.inl"
#include "device/cpu/formats/q4_1.inl"
#include "device/cpu/formats/q5.inl"
#include "device/cpu/formats/q8_0.inl"
#include "device/cpu/formats/tables.inl"
