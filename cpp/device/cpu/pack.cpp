#include "device/cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "device/cpu/kernels.h"
#include "quant_blocks.h"

namespace foundry::cpu {
namespace {

template <class Block>
void scales(const WeightView& view, uint64_t row, uint64_t n, uint64_t block, uint16_t Block::* member, std::byte* to) {
  uint16_t values[kLanes] = {};
  for (uint64_t lane = 0; lane < n; ++lane)
    values[lane] = (reinterpret_cast<const Block*>(view.data) + (row + lane) * (view.cols / kBlock) + block)->*member;
  std::memcpy(to, values, sizeof values);
}

template <class Block>
const Block& block_at(const WeightView& view, uint64_t row, uint64_t block) {
  return reinterpret_cast<const Block*>(view.data)[row * (view.cols / kBlock) + block];
}

/// The file's byte i holds k = i in its low nibble and k = i + 16 in its high one: groups are four of those bytes.
template <class Block>
void nibbles(const WeightView& view, uint64_t row, uint64_t n, uint64_t block, std::byte* to) {
  std::memset(to, 0, 256);
  for (uint64_t lane = 0; lane < n; ++lane)
    for (uint32_t group = 0; group < 4; ++group)
      std::memcpy(to + group * 64 + lane * 4, block_at<Block>(view, row + lane, block).nibbles + group * 4, 4);
}

void bytes(const WeightView& view, uint64_t row, uint64_t n, uint64_t block, int32_t offset, std::byte* to) {
  std::memset(to, 0, 512);
  for (uint64_t lane = 0; lane < n; ++lane)
    for (uint32_t k = 0; k < kBlock; ++k)
      to[k / 4 * 64 + lane * 4 + k % 4] =
          static_cast<std::byte>(block_at<BlockQ8_0>(view, row + lane, block).values[k] + offset);
}

}  // namespace

uint64_t panel_bytes(DType type, uint64_t cols) { return kLanes * (cols / block_elements(type)) * block_bytes(type); }

uint64_t packed_bytes(const WeightView& view) {
  return (view.rows + kLanes - 1) / kLanes * panel_bytes(view.type, view.cols);
}

void pack_panel(const WeightView& view, uint64_t index, int32_t q8_offset, std::byte* to) {
  const uint64_t row = index * kLanes, n = std::min<uint64_t>(kLanes, view.rows - row);
  switch (view.type) {
    case DType::q4_0:
      for (uint64_t b = 0; b < view.cols / kBlock; ++b, to += 288) {
        scales(view, row, n, b, &BlockQ4_0::scale, to);
        nibbles<BlockQ4_0>(view, row, n, b, to + 32);
      }
      break;
    case DType::q4_1:
      for (uint64_t b = 0; b < view.cols / kBlock; ++b, to += 320) {
        scales(view, row, n, b, &BlockQ4_1::scale, to);
        scales(view, row, n, b, &BlockQ4_1::minimum, to + 32);
        nibbles<BlockQ4_1>(view, row, n, b, to + 64);
      }
      break;
    case DType::q8_0:
      for (uint64_t b = 0; b < view.cols / kBlock; ++b, to += 544) {
        scales(view, row, n, b, &BlockQ8_0::scale, to);
        bytes(view, row, n, b, q8_offset, to + 32);
      }
      break;
    default: {
      const uint64_t size = block_bytes(view.type);
      for (uint64_t k = 0; k < view.cols; ++k)
        for (uint64_t lane = 0; lane < kLanes; ++lane, to += size) {
          if (lane < n)
            std::memcpy(to, view.data + ((row + lane) * view.cols + k) * size, size);
          else
            std::memset(to, 0, size);
        }
    }
  }
}

}  // namespace foundry::cpu
