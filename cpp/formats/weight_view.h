// A tensor of the model file, as the reader hands it to a device.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "formats/dtype.h"

namespace foundry {

/// A tensor of the model file: rows x cols, row-major, cols in blocks of its type. Mapped: outlives the device's weights.
struct WeightView {
  std::string name;
  DType type = DType::f32;
  uint64_t rows = 0;
  uint64_t cols = 0;
  const std::byte* data = nullptr;
  uint64_t bytes = 0;
};

}  // namespace foundry
