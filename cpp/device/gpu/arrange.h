// Weights in the order that metal/include/arranged.h tells: the same bytes, so no plan knows of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/dtype.h"

namespace foundry {

/// Whether rows of so many values of the format can be kept so.
bool can_arrange(DType type, uint64_t cols);
/// Whole bundles; `to` is as long as `from` and another place.
void arrange(DType type, std::span<const std::byte> from, std::span<std::byte> to);
/// Bytes of a bundle.
uint64_t bundle_bytes(DType type);

}  // namespace foundry
