#include "formats/dtype.h"

namespace foundry {

const char* dtype_name(DType type) {
  switch (type) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
    case DType::q4_0:
      return "q4_0";
    case DType::q4_1:
      return "q4_1";
    case DType::q8_0:
      return "q8_0";
  }
  return "unknown";
}

uint32_t block_elements(DType type) { return type == DType::f32 || type == DType::f16 || type == DType::bf16 ? 1 : 32; }

uint32_t block_bytes(DType type) {
  switch (type) {
    case DType::f32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::q4_0:
      return 18;
    case DType::q4_1:
      return 20;
    case DType::q8_0:
      return 34;
  }
  return 0;
}

}  // namespace foundry
