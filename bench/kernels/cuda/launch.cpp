// The kernels of the CUDA device by name, for benches in Python: on the context and the stream of who calls.
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "base/error.h"
#include "device/cuda/kernels.h"
#include "launch_arguments.h"

namespace {

using namespace foundry;

/// The dispatch that has this name: what stands behind the kernel's own is a part each.
Dispatch named(const std::string& name, uint32_t constants) {
  for (const char* base : {"attention_decode", "attention_prefill", "linear_wide", "linear_tiles", "linear_few",
                           "linear", "kv_append", "embed"}) {
    if (!name.starts_with(std::string(base) + "_")) continue;
    Dispatch launch(base, {}, 1);
    for (size_t at = std::string(base).size() + 1; at <= name.size();) {
      size_t end = name.find('_', at);
      if (const std::string part = name.substr(at, end - at); part.size() == 2 && end != std::string::npos)
        end = name.find('_', end + 1);  // q8_0
      launch.of(name.substr(at, end - at).c_str());
      at = end == std::string::npos ? name.size() + 1 : end + 1;
    }
    launch.constants = constants;
    return launch;
  }
  Dispatch launch(name.c_str(), {}, 1);
  launch.constants = constants;
  return launch;
}

}  // namespace

extern "C" {

/// Slot i is an address, or n_bytes[i] bytes of a small parameter. Null, or what went wrong.
__attribute__((visibility("default"))) const char* foundry_cuda_launch(const char* kernel, uint32_t x, uint32_t y,
                                                                       uint32_t z, uint32_t threads,
                                                                       void* const* buffers, const void* const* bytes,
                                                                       const uint32_t* n_bytes, uint32_t n_slots,
                                                                       uint32_t constants, uint32_t room_bytes,
                                                                       void* stream) {
  static std::string error;
  static std::map<std::pair<std::string, uint32_t>, cuda::Function> known;
  try {
    static const std::shared_ptr<cuda::Gpu> gpu = cuda::Gpu::open(0);
    static const std::shared_ptr<cuda::Kernels> kernels = cuda::Kernels::open(gpu, {});
    const cuda::Gpu::Current current(*gpu);
    cuda::Function& function = known[{kernel, constants}];
    if (function == nullptr) function = kernels->get(named(kernel, constants).room(room_bytes));
    metal_cuda::Arguments arguments{};
    for (uint32_t i = 0; i < n_slots; ++i) {
      arguments.buffers[i] = buffers[i];
      if (n_bytes[i] != 0) std::memcpy(arguments.values[i], bytes[i], n_bytes[i]);
    }
    void* parameters[] = {&arguments};
    gpu->check(gpu->driver().launch(function, x, y, z, threads, 1, 1, room_bytes, static_cast<cuda::Stream>(stream),
                                    parameters, nullptr),
               kernel);
    return nullptr;
  } catch (const Error& failed) {
    error = failed.what();
    return error.c_str();
  }
}

}  // extern "C"
