// How many threadgroups a launch has, and what it moves.
#pragma once
#include <cstdint>

namespace foundry {

inline uint32_t groups(uint64_t n, uint32_t each) { return static_cast<uint32_t>((n + each - 1) / each); }

/// Bytes of a launch that goes over rows of floats so many times, reads and writes together.
inline double moved(uint64_t n_rows, uint64_t width, double times) {
  return static_cast<double>(n_rows * width * sizeof(float)) * times;
}

}  // namespace foundry
