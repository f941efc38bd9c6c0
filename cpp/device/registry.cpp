// The devices there are.
#include <map>

#include "base/error.h"
#include "device/cpu/cpu_device.h"
#include "device/device.h"
#ifdef FOUNDRY_METAL
#include "device/metal/metal_device.h"
#endif
#include "device/reference/reference_device.h"

namespace foundry {
namespace {

std::map<std::string, DeviceMaker>& registered() {
  static std::map<std::string, DeviceMaker> devices;
  return devices;
}

#ifdef FOUNDRY_METAL
bool has_metal() { return metal_available(); }
bool auto_is_metal() { return metal_trusted(); }
#else
bool has_metal() { return false; }
bool auto_is_metal() { return false; }
std::unique_ptr<Device> make_metal_device(const DeviceOptions&) { return nullptr; }
#endif

}  // namespace

void register_device(const std::string& name, DeviceMaker make) { registered()[name] = make; }

std::vector<std::string> device_names() {
  std::vector<std::string> names{"reference", "cpu"};
  for (const std::string& isa : cpu_instruction_sets()) names.push_back("cpu:" + isa);
  if (has_metal()) names.insert(names.end(), {"metal", "metal:strict"});
  for (const auto& [name, make] : registered()) names.push_back(name);
  return names;
}

std::unique_ptr<Device> make_device(const DeviceOptions& options) {
  const std::string& name = options.name;
  if (name == "reference") return make_reference_device();
  // Where Metal has been seen right (docs/first_mac.md), "auto" is Metal.
  if (name == "auto" && auto_is_metal()) {
    DeviceOptions metal = options;
    metal.name = "metal";
    return make_device(metal);
  }
  if (auto metal = make_metal_device(options)) return metal;
  if (name == "auto" || name == "cpu") return make_cpu_device("", options.threads);
  if (name.rfind("cpu:", 0) == 0) return make_cpu_device(name.substr(4), options.threads);
  if (const auto found = registered().find(name); found != registered().end()) return found->second(options);
  std::string names = "auto";
  for (const std::string& known : device_names()) names += ", " + known;
  throw ValueError("device: expected one of " + names + ", found \"" + name + "\"");
}

}  // namespace foundry
