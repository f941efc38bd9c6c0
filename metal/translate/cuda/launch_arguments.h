// What a launch on an NVIDIA GPU passes, for the host and for kernels: at each [[buffer(n)]] an address, or a small parameter itself.
#pragma once

namespace metal_cuda {

constexpr int kMostBuffers = 16;
constexpr int kValueBytes = 64;  // the longest of the parameters that kernels take by reference

struct Arguments {
  void* buffers[kMostBuffers];
  alignas(16) char values[kMostBuffers][kValueBytes];
};

}  // namespace metal_cuda
