// Element types of weights, activations and K/V. Values are GGML's type numbers (GGUF specification, ggml_type).
#pragma once
#include <cstdint>

namespace foundry {

enum class DType : uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q8_0 = 8, bf16 = 30 };

const char* dtype_name(DType type);
/// Elements in one block (1 for plain types, 32 for the quantised ones here).
uint32_t block_elements(DType type);
/// Bytes of one block.
uint32_t block_bytes(DType type);

}  // namespace foundry
