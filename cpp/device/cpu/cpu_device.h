// The CPU device: kernels of one instruction set over a thread pool.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"

namespace foundry {

/// Instruction sets of this build that the processor has, the best first.
std::vector<std::string> cpu_instruction_sets();
/// isa empty: the best. threads 0: all there are. ValueError names what there is.
std::unique_ptr<Device> make_cpu_device(const std::string& isa, uint32_t threads);

}  // namespace foundry
