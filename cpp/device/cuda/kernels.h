// The kernels of metal/ on one GPU, by name and function constants: compiled as they are first asked for, kept on
// disk between runs where there is a folder for them, and loaded into the context.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/lock_order.h"
#include "device/cuda/compiler.h"
#include "device/cuda/cubins.h"
#include "device/cuda/gpu.h"
#include "device/gpu/kernel_queue.h"

namespace foundry::cuda {

class Kernels {
 public:
  /// Those of this GPU, compiler and cache folder, one for the process: a second model finds what the first one had
  /// compiled. ValueError: there is no compiler, or none for this GPU or its driver; it says what to install.
  static std::shared_ptr<Kernels> open(const std::shared_ptr<Gpu>& gpu, const DeviceOptions& options);
  Kernels(const Kernels&) = delete;

  /// ConsistencyError: no such kernel, or one that does not compile. Thread-safe.
  Function get(const Dispatch& launch);
  /// "sm_90a, NVRTC 13.0": what decides about bits.
  std::string made_by() const;

 private:
  using Key = std::pair<std::array<char, 64>, uint32_t>;
  Kernels(std::shared_ptr<Gpu> gpu, const DeviceOptions& options);
  Function make(const Dispatch& launch);

  const std::shared_ptr<Gpu> gpu_;
  const std::shared_ptr<Compiler> compiler_;
  const std::string architecture_;
  const Cubins cubins_;
  RankedMutex mutex_{LockRank::gpu_kernels};
  std::map<Key, Function> known_;  // their modules stay loaded as long as the context
};

}  // namespace foundry::cuda
