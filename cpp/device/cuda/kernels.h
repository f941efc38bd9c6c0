// The kernels of metal/ on one GPU, by name and function constants: compiled as they are first asked for, kept on
// disk between runs where there is a folder for them, and loaded into the context.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "device/cuda/compiler.h"
#include "device/cuda/cubins.h"
#include "device/cuda/gpu.h"
#include "device/gpu/kernel_queue.h"

namespace foundry::cuda {

class Kernels {
 public:
  /// ValueError: there is no compiler, or none for this GPU or its driver; it says what to install.
  Kernels(std::shared_ptr<Gpu> gpu, const DeviceOptions& options);
  ~Kernels();
  Kernels(const Kernels&) = delete;

  /// ConsistencyError: no such kernel, or one that does not compile.
  Function get(const Dispatch& launch);
  /// "sm_90a, NVRTC 13.0": what decides about bits.
  std::string made_by() const;

 private:
  using Key = std::pair<std::array<char, 64>, uint32_t>;
  Module module_of(const Dispatch& launch, const std::string& name);

  std::shared_ptr<Gpu> gpu_;
  std::shared_ptr<Compiler> compiler_;
  std::string architecture_;
  Cubins cubins_;
  std::map<Key, Function> known_;
  std::vector<Module> modules_;
};

}  // namespace foundry::cuda
