// The tensor types that GGUF files are known to hold: enough to check a tensor's extent, even where it cannot be
// computed with. Source: GGUF specification (ggml_type). Types that exist only between computations (Q8_1, Q8_K) are no
// part of files.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "formats/dtype.h"

namespace foundry {

struct TensorType {
  uint32_t number;
  const char* name;
  uint32_t block_elements;
  uint32_t block_bytes;
  bool supported;  // it is one of formats.def, and a DType
};

std::span<const TensorType> tensor_types();
/// Null when the number names no type that is known.
const TensorType* find_tensor_type(uint32_t number);
/// "F32, F16, ...": for messages.
std::string supported_tensor_types();

}  // namespace foundry
