// Linear layers on AMX's tile registers, which multiply sixteen rows of bytes by sixteen outputs at once. Byte products
// are added in int32, exactly, and all that is rounded happens in the order of linear.inl: the bits are those of
// AVX-512.
#include "device/cpu/kernels.h"
#include "formats/codes.h"
#include "formats/dtype.h"
#include "quant_blocks.h"

namespace foundry::cpu::amx {
namespace {

#include "device/cpu/formats/formats.inl"
//
#include "device/cpu/panels.inl"

constexpr uint32_t kTileRows = 16;
// Tile registers. GCC's intrinsics make assembler's names of them, and so want macros.
#define FOUNDRY_WEIGHTS 0
#define FOUNDRY_COARSE 1
#define FOUNDRY_FINE 2
#define FOUNDRY_COARSE_SUMS 3
#define FOUNDRY_FINE_SUMS 4

/// The shapes of tiles, as LDTILECFG takes them (Intel 64 SDM, volume 1, chapter 18).
struct TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  /// For activations of `depth` k: weights are fours of k, sixteen outputs each.
  explicit TileShapes(uint32_t depth) {
    const auto set = [&](uint32_t tile, uint32_t n_rows, uint32_t bytes) {
      rows[tile] = static_cast<uint8_t>(n_rows);
      row_bytes[tile] = static_cast<uint16_t>(bytes);
    };
    set(FOUNDRY_WEIGHTS, depth / 4, 4 * kLanes);
    set(FOUNDRY_COARSE, kTileRows, depth);
    set(FOUNDRY_FINE, kTileRows, depth);
    set(FOUNDRY_COARSE_SUMS, kTileRows, 4 * kLanes);
    set(FOUNDRY_FINE_SUMS, kTileRows, 4 * kLanes);
  }
};
static_assert(sizeof(TileShapes) == 64);

/// GCC's intrinsics of tiles don't say that they read memory; stores before this are there for those behind it.
inline void stores_are_done() { asm volatile("" ::: "memory"); }

/// Pair i of a part's groups, each to its place in the order of k.
template <class Format, uint32_t i>
inline void spread_pair(const std::byte* w, uint32_t part, std::byte* groups) {
  constexpr uint32_t kFirst = Format::kApart == 1 ? 2 * i : i, kSecond = kFirst + Format::kApart;
  Bytes k[2];
  Format::template pair<i>(w, part, k);
  store_bytes(groups + 64 * kFirst, k[0]);
  store_bytes(groups + 64 * kSecond, k[1]);
}

template <class Format>
inline void spread(const std::byte* w, uint32_t part, std::byte* groups) {
  spread_pair<Format, 0>(w, part, groups);
  spread_pair<Format, 1>(w, part, groups);
  spread_pair<Format, 2>(w, part, groups);
  spread_pair<Format, 3>(w, part, groups);
}

struct Sums {
  alignas(64) int32_t coarse[kTileRows][kLanes];
  alignas(64) int32_t fine[kTileRows][kLanes];
};

/// The byte products of what shares a scale. `q` is the first row's block of activations.
inline void multiply(const int8_t* q, uint64_t row_bytes, const std::byte* groups, Sums& sums) {
  stores_are_done();
  _tile_loadd(FOUNDRY_WEIGHTS, groups, 64);
  _tile_loadd(FOUNDRY_COARSE, q, row_bytes);
  _tile_loadd(FOUNDRY_FINE, q + kBlock, row_bytes);
  _tile_zero(FOUNDRY_COARSE_SUMS);
  _tile_zero(FOUNDRY_FINE_SUMS);
  _tile_dpbsud(FOUNDRY_COARSE_SUMS, FOUNDRY_COARSE, FOUNDRY_WEIGHTS);
  _tile_dpbsud(FOUNDRY_FINE_SUMS, FOUNDRY_FINE, FOUNDRY_WEIGHTS);
  _tile_stored(FOUNDRY_COARSE_SUMS, sums.coarse, 64);
  _tile_stored(FOUNDRY_FINE_SUMS, sums.fine, 64);
}

template <DType T>
inline void tile_rows(const LinearPanel& a, uint32_t row) {
  using Format = Packed<T>;
  constexpr uint32_t kParts = BlockSize<T>::elements / kBlock, kHalves = Format::kHalves;
  constexpr uint32_t kPartBytes = (Format::bytes + kParts - 1) / kParts;
  const uint64_t n_blocks = a.in_features / kBlock, row_bytes = n_blocks * kQuantBytes;
  alignas(64) std::byte groups[8 * 64];
  Sums sums;
  F16 acc[kTileRows];
  for (F16& one : acc) one = zero();
  const std::byte* w = a.panel;
  for (uint64_t b = row * n_blocks; b < (row + uint64_t{1}) * n_blocks; w += Format::bytes)
    for (uint32_t part = 0; part < kParts; ++part, ++b) {
      ask_ahead<kPartBytes>(w + part * kPartBytes);
      spread<Format>(w, part, groups);
      for (uint32_t half = 0; half < kHalves; ++half) {
        multiply(a.quant.q + b * kQuantBytes + half * kBlock / kHalves, row_bytes, groups + half * 256, sums);
        const F16 d = Format::scale(w, part, half);
        _Pragma("GCC unroll 16") for (uint32_t r = 0; r < kTileRows; ++r) {
          const uint64_t block = b + r * n_blocks;
          const int32_t* of_q = a.quant.sums + 2 * block;
          const int32_t q_sum = kHalves == 2 ? of_q[half] : of_q[0] + of_q[1];
          const float scale = a.quant.scales[block];
          const I16 fine = iadd(load_i32(sums.fine[r]), iset1(-Format::kOffset * q_sum));
          const I16 sum = iadd(shift_left7(load_i32(sums.coarse[r])), fine);
          add_scaled<Format>(acc[r], sum, d, scale, scale * static_cast<float>(q_sum), w, part, half);
        }
      }
    }
  put_outputs(a, row, acc);
}

/// Whether tiles can: in f32, f16 and bf16 they would round otherwise.
template <DType T>
inline bool linear_tiles(const LinearPanel& a, uint32_t n_rows) {
  if constexpr (BlockSize<T>::elements == 1) {
    return false;
  } else {
    const TileShapes shapes(kBlock / Packed<T>::kHalves);
    stores_are_done();
    _tile_loadconfig(&shapes);
    for (uint32_t row = 0; row < n_rows; row += kTileRows) tile_rows<T>(a, row);
    _tile_release();
    return true;
  }
}

bool tiles(const LinearPanel& a, uint32_t n_rows) {
#define FOUNDRY_TILES(name, Name, number, elements, bytes, kind, linear, ...) \
  FOUNDRY_HOST_##linear(case DType::name : return linear_tiles<DType::name>(a, n_rows);)
  switch (static_cast<DType>(a.type)) {
    FOUNDRY_FORMATS(FOUNDRY_TILES)
    default:
      return false;
  }
#undef FOUNDRY_TILES
}

/// The same layer over the rows from `row` on, of weights that are quantised.
inline LinearPanel rows_from(const LinearPanel& a, uint32_t row) {
  LinearPanel rest = a;
  const uint64_t blocks = uint64_t{row} * (a.in_features / kBlock), out = row * a.out_stride;
  rest.n_rows -= row;
  rest.x += uint64_t{row} * a.in_features;
  rest.quant.q += blocks * kQuantBytes;
  rest.quant.scales += blocks;
  rest.quant.sums += 2 * blocks;
  if (a.residual != nullptr) rest.residual += out;
  rest.out += out;
  return rest;
}

void linear(const LinearPanel& a) {
  const uint32_t whole = a.n_rows / kTileRows * kTileRows;
  if (whole == 0 || !tiles(a, whole)) return kernels_avx512().linear(a);
  if (whole != a.n_rows) kernels_avx512().linear(rows_from(a, whole));
}

}  // namespace
}  // namespace foundry::cpu::amx
