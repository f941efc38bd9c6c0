// A tensor of the model file, as the reader hands it to a device.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "formats/dtype.h"

namespace foundry {

/// A tensor of the model file: rows x cols, row-major, cols in blocks of its type. Its bytes are mapped and outlive the
/// device's weights; or only the file's header was read, and there are none: enough for a plan.
struct WeightView {
  std::string name;
  DType type = DType::f32;
  uint64_t rows = 0;
  uint64_t cols = 0;
  const std::byte* data = nullptr;
  uint64_t bytes = 0;
  uint64_t offset = 0;    // in the file
  float plus = 0;         // added to each value: some files hold scales of norms less 1. Of vectors alone
  uint64_t matrices = 1;  // of equal rows, one behind the other, where there are experts: rows counts those of all

  /// Where it lies, as far as alignment up to the system's pages goes, and the same before and after it is mapped: a
  /// map begins at a page.
  uint64_t place() const { return data == nullptr ? offset : reinterpret_cast<uint64_t>(data); }
};

}  // namespace foundry
