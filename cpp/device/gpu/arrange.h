// Weights in the order that metal/include/arranged.h tells: as many bytes as in the file, so no plan knows of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/dtype.h"

namespace foundry {

inline constexpr uint64_t kArrangedRows = 16;  // that lie together

/// Whether a matrix of the format can be kept so.
bool can_arrange(DType type, uint64_t rows, uint64_t cols);
/// Of a row's bytes in the file those that are codes; the others are scales.
uint64_t code_bytes(DType type, uint64_t cols);
/// Rows as they lie in the file, whole sixteens of them, `cols` long: their codes and their scales.
void arrange(DType type, uint64_t cols, std::span<const std::byte> from, std::span<std::byte> codes,
             std::span<std::byte> scales);

}  // namespace foundry
