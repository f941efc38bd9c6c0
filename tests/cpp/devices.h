// On which devices the engine's tests run: FOUNDRY_DEVICE names one ("shadow" and "shadow:ahead" are there for them), or they take
// the processor, and those that ask for every device all there are.
#pragma once
#include <cstdlib>
#include <string>
#include <vector>

#include "device/device.h"
#include "shadow/shadow_device.h"

namespace foundry::test {

inline const char* chosen_device() {
  static const char* const name = [] {
    const char* chosen = std::getenv("FOUNDRY_DEVICE");
    if (chosen != nullptr) register_shadow_devices();
    return chosen;
  }();
  return name;
}
inline std::string device() { return chosen_device() == nullptr ? "cpu" : chosen_device(); }
inline std::vector<std::string> devices() {
  return chosen_device() == nullptr ? device_names() : std::vector<std::string>{device()};
}

}  // namespace foundry::test
