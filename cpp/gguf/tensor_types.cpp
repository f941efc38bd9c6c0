#include "gguf/tensor_types.h"

#include "formats/dtype.h"

namespace foundry {
namespace {

#define FOUNDRY_TYPE(name, Name, number, elements, bytes, ...) {number, #Name, elements, bytes, true},
constexpr TensorType kTypes[] = {
    // Those that Foundry computes with.
    FOUNDRY_FORMATS(FOUNDRY_TYPE)
    // Those that it knows the size of.
    {19, "IQ1_S", 256, 50, false},
    {24, "I8", 1, 1, false},
    {25, "I16", 1, 2, false},
    {26, "I32", 1, 4, false},
    {27, "I64", 1, 8, false},
    {28, "F64", 1, 8, false},
    {29, "IQ1_M", 256, 56, false},
    {34, "TQ1_0", 256, 54, false},
    {35, "TQ2_0", 256, 66, false},
    {40, "NVFP4", 64, 36, false},
    {41, "Q1_0", 128, 18, false},
};
#undef FOUNDRY_TYPE

}  // namespace

std::span<const TensorType> tensor_types() { return kTypes; }

const TensorType* find_tensor_type(uint32_t number) {
  for (const TensorType& type : kTypes)
    if (type.number == number) return &type;
  return nullptr;
}

std::string supported_tensor_types() {
  std::string names;
  for (const TensorType& type : kTypes) {
    if (!type.supported) continue;
    if (!names.empty()) names += ", ";
    names += type.name;
  }
  return names;
}

}  // namespace foundry
