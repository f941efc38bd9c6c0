// NVIDIA's GPUs: the kernels of metal/, translated to CUDA, compiled by NVRTC and run through the driver
// (docs/cuda.md).
#pragma once
#include <memory>

#include "device/device.h"

namespace foundry {

/// Those that make_cuda_device takes on this machine: "cuda" is the first, then "cuda:1" and on.
std::vector<GpuFound> cuda_gpus();
/// Whether there is one that make_cuda_device would take: a path, or empty for the loader's name.
bool cuda_compiler_available(const std::string& path);
/// Names, each with and without ":strict", as make_gpu_device has strict. Null: no name of these. ValueError: there
/// is no such GPU, no driver or no compiler; it says what to do.
std::unique_ptr<Device> make_cuda_device(const DeviceOptions& options);

}  // namespace foundry
