// Weights in the order that metal/include/arranged_super.h tells.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/dtype.h"

namespace foundry {

/// Whether that order is for the format.
inline bool is_super(DType type) { return type == DType::q4_k || type == DType::q6_k; }
/// Whole sixteens of rows of `row` bytes, as they lie in the file. `to` is as long.
void arrange_super(DType type, uint64_t row, std::span<const std::byte> from, std::span<std::byte> to);

}  // namespace foundry
