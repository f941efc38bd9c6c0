// The Mac that the software Metal plays: its system and its GPU. From the environment, or set by a test.
#pragma once
#include <string>

namespace software_gpu {

struct Machine {
  int macos = 15;                // FOUNDRY_METAL_MACOS
  std::string build = "24A335";  // FOUNDRY_METAL_BUILD
  /// FOUNDRY_METAL_GPU: the newest of Apple's families that the GPU reports, 0 for another maker's; -1: there is no GPU.
  int family = 7;
  /// FOUNDRY_METAL_FOUND=default: CoreGraphics is linked, and the list of devices is empty. Else the other way round: a list, and no
  /// default device.
  bool listed = true;
};
Machine& machine();
/// Whether this system has a class, or a method, that a later one brought.
bool knows(const std::string& name);

}  // namespace software_gpu
