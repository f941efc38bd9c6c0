#include "formats/dtype.h"

namespace foundry {

const char* dtype_name(DType type) {
#define FOUNDRY_NAME(name, ...) \
  case DType::name:             \
    return #name;
  switch (type) { FOUNDRY_FORMATS(FOUNDRY_NAME) }
#undef FOUNDRY_NAME
  return "unknown";
}

uint32_t block_elements(DType type) {
#define FOUNDRY_ELEMENTS(name, ...) \
  case DType::name:                 \
    return BlockSize<DType::name>::elements;
  switch (type) { FOUNDRY_FORMATS(FOUNDRY_ELEMENTS) }
#undef FOUNDRY_ELEMENTS
  return 1;
}

uint32_t block_bytes(DType type) {
#define FOUNDRY_BYTES(name, ...) \
  case DType::name:              \
    return BlockSize<DType::name>::bytes;
  switch (type) { FOUNDRY_FORMATS(FOUNDRY_BYTES) }
#undef FOUNDRY_BYTES
  return 0;
}

}  // namespace foundry
