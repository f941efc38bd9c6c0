#include <cuda_runtime.h>

#include <cstring>
#include <map>
#include <metal_stdlib>
#include <string>

#include "device/cuda/launch.h"

namespace {

std::map<std::string, const void*>& entries() {
  static std::map<std::string, const void*> all;
  return all;
}

}  // namespace

metal_cuda::Registered::Registered(const char* name, const void* entry) { entries()[name] = entry; }

int foundry_cuda_launch(const char* kernel, uint32_t x, uint32_t y, uint32_t z, uint32_t threads, void* const* buffers,
                        const void* const* bytes, const uint32_t* n_bytes, uint32_t n_slots, void* stream) {
  const auto found = entries().find(kernel);
  if (found == entries().end()) return -1;
  metal_cuda::Arguments arguments{};
  for (uint32_t i = 0; i < n_slots; ++i) {
    arguments.buffers[i] = buffers[i];
    if (n_bytes[i] != 0 && n_bytes[i] <= sizeof arguments.values[i])
      std::memcpy(arguments.values[i], bytes[i], n_bytes[i]);
  }
  void* pointers[] = {&arguments};
  return cudaLaunchKernel(found->second, dim3(x, y, z), dim3(threads), pointers, 0, static_cast<cudaStream_t>(stream));
}
