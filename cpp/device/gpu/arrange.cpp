#include "device/gpu/arrange.h"

#include <cstring>

#include "base/error.h"
#include "device/gpu/arrange_super.h"
#include "formats/block_formats.h"

namespace foundry {
namespace {

constexpr uint64_t kScale = 2;  // bytes, in front of a block's codes

/// Blocks of a step: a lane, of the four that share a row, has 16 bytes of their codes.
uint64_t step_blocks(DType type) { return 64 / (block_bytes(type) - kScale); }
uint64_t blocks_of(uint64_t cols) { return cols / 32; }

/// A lane has kShare bytes of a block, in pieces of four that lie 16 bytes apart there.
template <uint64_t kCodes>
void arrange_row(const std::byte* from, uint64_t steps, std::byte* codes, std::byte* scales) {
  constexpr uint64_t kShare = kCodes / 4, kBlocks = 16 / kShare;
  for (uint64_t step = 0; step < steps; ++step)
    for (uint64_t b = 0; b < kBlocks; ++b, from += kScale + kCodes) {
      std::memcpy(scales + (step * kArrangedRows * kBlocks + b) * kScale, from, kScale);
      std::byte* to = codes + step * kArrangedRows * 64 + b * kShare;
      for (uint64_t lane = 0; lane < 4; ++lane)
        for (uint64_t piece = 0; piece < kShare / 4; ++piece)
          std::memcpy(to + lane * 16 + piece * 4, from + kScale + piece * 16 + lane * 4, 4);
    }
}

}  // namespace

bool can_arrange(DType type, uint64_t rows, uint64_t cols) {
  if (is_super(type)) return rows % kArrangedRows == 0;
  if (type != DType::q4_0 && type != DType::q8_0) return false;
  return rows % kArrangedRows == 0 && cols % (32 * step_blocks(type)) == 0;
}

uint64_t code_bytes(DType type, uint64_t cols) {
  return is_super(type) ? row_bytes(type, cols) : blocks_of(cols) * (block_bytes(type) - kScale);
}

void arrange(DType type, uint64_t cols, std::span<const std::byte> from, std::span<std::byte> codes,
             std::span<std::byte> scales) {
  const uint64_t row = row_bytes(type, cols), rows = from.size() / row, code = code_bytes(type, cols);
  if (!can_arrange(type, rows, cols) || codes.size() != rows * code || scales.size() != rows * (row - code))
    throw ConsistencyError("arrange: expected whole sixteens of rows, and room for them");
  if (is_super(type)) return arrange_super(type, row, from, codes);
  const uint64_t blocks = step_blocks(type), steps = blocks_of(cols) / blocks;
  for (uint64_t r = 0; r < rows; ++r) {
    const uint64_t group = r / kArrangedRows * kArrangedRows, in_group = r % kArrangedRows;
    std::byte* to = codes.data() + group * code + in_group * 64;
    std::byte* scale = scales.data() + group * (row - code) + in_group * blocks * kScale;
    if (type == DType::q4_0)
      arrange_row<16>(from.data() + r * row, steps, to, scale);
    else
      arrange_row<32>(from.data() + r * row, steps, to, scale);
  }
}

}  // namespace foundry
