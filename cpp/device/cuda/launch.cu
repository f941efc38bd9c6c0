#include <cuda_runtime.h>

#include <cstring>
#include <map>
#include <metal_stdlib>
#include <string>

#include "device/cuda/launch.h"

namespace {

struct Kernel {
  const void* entry;
  const void* constants;  // of its file
};
std::map<std::string, Kernel>& entries() {
  static std::map<std::string, Kernel> all;
  return all;
}

/// In the stream's order: launches before see what they were given.
cudaError_t set_constants(const void* symbol, uint32_t constants, cudaStream_t stream) {
  static std::map<const void*, uint32_t> known;
  const auto found = known.find(symbol);
  if (found != known.end() && found->second == constants) return cudaSuccess;
  known[symbol] = constants;
  return cudaMemcpyToSymbolAsync(symbol, &constants, sizeof constants, 0, cudaMemcpyHostToDevice, stream);
}

}  // namespace

metal_cuda::Registered::Registered(const char* name, const void* entry, const void* constants) {
  entries()[name] = {entry, constants};
}

int foundry_cuda_launch(const char* kernel, uint32_t x, uint32_t y, uint32_t z, uint32_t threads, void* const* buffers,
                        const void* const* bytes, const uint32_t* n_bytes, uint32_t n_slots, uint32_t constants,
                        void* stream) {
  const auto found = entries().find(kernel);
  if (found == entries().end()) return -1;
  metal_cuda::Arguments arguments{};
  for (uint32_t i = 0; i < n_slots; ++i) {
    arguments.buffers[i] = buffers[i];
    if (n_bytes[i] != 0 && n_bytes[i] <= sizeof arguments.values[i])
      std::memcpy(arguments.values[i], bytes[i], n_bytes[i]);
  }
  const auto queue = static_cast<cudaStream_t>(stream);
  if (const cudaError_t status = set_constants(found->second.constants, constants, queue); status != cudaSuccess)
    return status;
  void* pointers[] = {&arguments};
  return cudaLaunchKernel(found->second.entry, dim3(x, y, z), dim3(threads), pointers, 0, queue);
}
