// The readable meaning of each weight format: what every fast kernel is measured against.
#pragma once
#include <cstddef>
#include <cstdint>

#include "formats/dtype.h"
#include "quant_blocks.h"

namespace foundry {

/// Bytes of n values. ValueError unless n is a whole number of blocks.
uint64_t row_bytes(DType type, uint64_t n);

/// Writes the values of one block as f32: products in the order that quant_blocks.h has them in, and where there is a
/// minimum one sum, each rounded to f32.
#define FOUNDRY_DEQUANTISE(name, Name, ...) void dequantise(const Block##Name& block, float* to);
FOUNDRY_FORMATS(FOUNDRY_DEQUANTISE)
#undef FOUNDRY_DEQUANTISE

/// Writes n values of `src` to `dst` as f32. `src` may lie at any address. ValueError unless n is a whole number of
/// blocks.
void dequantise_row(DType type, const std::byte* src, float* dst, uint64_t n);

}  // namespace foundry
