// Element types of weights, activations and K/V: the formats of formats.def. Values are GGML's type numbers.
#pragma once
#include <cstdint>

#include "formats/formats.def"

namespace foundry {

#define FOUNDRY_ENUMERATOR(name, Name, number, ...) name = number,
enum class DType : uint32_t { FOUNDRY_FORMATS(FOUNDRY_ENUMERATOR) };
#undef FOUNDRY_ENUMERATOR

/// A format's sizes where the compiler needs them.
template <DType type>
struct BlockSize;
#define FOUNDRY_SIZE(name, Name, number, n_elements, n_bytes, ...) \
  template <>                                                      \
  struct BlockSize<DType::name> {                                  \
    static constexpr uint32_t elements = n_elements;               \
    static constexpr uint32_t bytes = n_bytes;                     \
  };
FOUNDRY_FORMATS(FOUNDRY_SIZE)
#undef FOUNDRY_SIZE

const char* dtype_name(DType type);
/// Elements in one block: 1 for plain types.
uint32_t block_elements(DType type);
/// Bytes of one block.
uint32_t block_bytes(DType type);

}  // namespace foundry
