// The devices there are.
#include <map>

#include "base/error.h"
#include "device/cpu/cpu_device.h"
#ifdef FOUNDRY_CUDA
#include "device/cuda/cuda_device.h"
#endif
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

#ifdef FOUNDRY_CUDA
bool has_cuda_compiler(const DeviceOptions& options) { return cuda_compiler_available(options.compiler); }
#else
bool has_cuda_compiler(const DeviceOptions&) { return false; }
std::vector<GpuFound> cuda_gpus() { return {}; }
std::unique_ptr<Device> make_cuda_device(const DeviceOptions&) { return nullptr; }
#endif

}  // namespace

void register_device(const std::string& name, DeviceMaker make) { registered()[name] = make; }

std::vector<std::string> device_names() {
  std::vector<std::string> names{"reference", "cpu"};
  for (const std::string& isa : cpu_instruction_sets()) names.push_back("cpu:" + isa);
  if (has_metal()) names.insert(names.end(), {"metal", "metal:strict"});
  for (const GpuFound& gpu : gpus()) names.insert(names.end(), {gpu.name, gpu.name + ":strict"});
  for (const auto& [name, make] : registered()) names.push_back(name);
  return names;
}

std::vector<GpuFound> gpus() { return cuda_gpus(); }

std::vector<std::string> auto_devices(const DeviceOptions& options) {
  std::vector<std::string> names;
  if (auto_is_metal()) names.push_back("metal");  // where it has been seen right (docs/first_mac.md)
  const std::vector<GpuFound> found = gpus();
  if (!found.empty() && has_cuda_compiler(options))
    for (const GpuFound& gpu : found) names.push_back(gpu.name);
  names.push_back("cpu");
  return names;
}

std::unique_ptr<Device> make_device(const DeviceOptions& options) {
  const std::string& name = options.name;
  if (name == "reference") return make_reference_device();
  if (name == "auto") {
    DeviceOptions best = options;
    best.name = auto_devices(options).front();
    return make_device(best);
  }
  if (auto metal = make_metal_device(options)) return metal;
  if (auto cuda = make_cuda_device(options)) return cuda;
  if (name == "cpu") return make_cpu_device("", options.threads);
  if (name.rfind("cpu:", 0) == 0) return make_cpu_device(name.substr(4), options.threads);
  if (const auto found = registered().find(name); found != registered().end()) return found->second(options);
  std::string names = "auto";
  for (const std::string& known : device_names()) names += ", " + known;
  throw ValueError("device: expected one of " + names + ", found \"" + name + "\"");
}

}  // namespace foundry
