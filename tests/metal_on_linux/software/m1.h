// What an M1 would make of it: the time that a launch takes, and what its compiler refuses. Written beside the device's own guess
// (cpp/device/metal/m1_time.h), from the kernels' parameters, to hold that to it.
#pragma once
#include <cstdint>
#include <string>

#include "metal_on_linux/software/gpu.h"

namespace software_gpu {

/// A command buffer that takes longer is ended as too long. macOS waits for some seconds; a window server that stutters does not.
inline constexpr double kLongest = 0.5;
double m1_seconds(const Command& command);

/// Null, or why there is no library of this text in a version of the language, as MTLLanguageVersion has it.
const char* refused(const std::string& text, uint64_t version);

}  // namespace software_gpu
