#include "device/gpu/arrange.h"

#include <cstring>

#include "base/error.h"

namespace foundry {
namespace {

constexpr uint32_t kValues = 256, kBlocks = 8;

/// The codes of a block are four lanes' shares of kShare bytes, which lie kApart bytes apart in pieces of four; of
/// kTogether blocks one lane has 16 bytes.
template <uint32_t kBlockBytes>
void arrange_bundle(const std::byte* from, std::byte* to) {
  constexpr uint32_t kCodes = kBlockBytes - 2, kShare = kCodes / 4, kTogether = 16 / kShare;
  for (uint32_t b = 0; b < kBlocks; ++b) {
    const std::byte* block = from + b * kBlockBytes;
    std::memcpy(to + 2 * b, block, 2);
    std::byte* codes = to + 2 * kBlocks + b / kTogether * 64 + b % kTogether * kShare;
    for (uint32_t j = 0; j < 4; ++j)
      for (uint32_t piece = 0; piece < kShare / 4; ++piece)
        std::memcpy(codes + 16 * j + 4 * piece, block + 2 + 4 * j + 16 * piece, 4);
  }
}

template <uint32_t kBlockBytes>
void arrange_bundles(std::span<const std::byte> from, std::span<std::byte> to) {
  for (uint64_t at = 0; at < from.size(); at += kBlocks * kBlockBytes)
    arrange_bundle<kBlockBytes>(from.data() + at, to.data() + at);
}

}  // namespace

bool can_arrange(DType type, uint64_t cols) {
  return (type == DType::q4_0 || type == DType::q8_0) && cols % kValues == 0;
}

uint64_t bundle_bytes(DType type) { return kBlocks * block_bytes(type); }

void arrange(DType type, std::span<const std::byte> from, std::span<std::byte> to) {
  if (from.size() != to.size() || from.size() % bundle_bytes(type) != 0)
    throw ConsistencyError("arrange: expected whole bundles");
  switch (type) {
    case DType::q4_0:
      return arrange_bundles<BlockSize<DType::q4_0>::bytes>(from, to);
    case DType::q8_0:
      return arrange_bundles<BlockSize<DType::q8_0>::bytes>(from, to);
    default:
      throw ConsistencyError("arrange: expected a format with an order of its own");
  }
}

}  // namespace foundry
