// The device "metal:host": the launches of GpuDevice, run by host/runtime.h.
#pragma once
#include <cstdint>
#include <set>
#include <string>

namespace foundry::metal_tests {

void register_host_device();

inline uint64_t schedule = 0;       // 0: threads in order; else the seed of a shuffled order
inline uint64_t launches = 0;       // so far
inline std::set<std::string> seen;  // kernels that were launched

}  // namespace foundry::metal_tests
