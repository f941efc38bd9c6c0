// Compute pipelines by kernel name and function constants: compiled from the source that the library carries, a file at a time as
// kernels are asked for, and kept on disk between runs where there is a folder for them.
#pragma once
#import <Metal/Metal.h>

#include <array>
#include <map>
#include <string>
#include <utility>

#include "device/gpu/kernel_queue.h"

namespace foundry {

class Pipelines {
 public:
  /// `cache_dir` empty: nothing is kept.
  Pipelines(id<MTLDevice> device, const std::string& cache_dir);

  /// ConsistencyError: no such kernel, or one that does not compile.
  id<MTLComputePipelineState> get(const Dispatch& launch);
  /// Writes what was compiled since the last save. A folder that can't be written is no error: the next run compiles again.
  void save();

 private:
  using Key = std::pair<std::array<char, 64>, uint32_t>;
  id<MTLFunction> function(const Dispatch& launch);
  id<MTLLibrary> library(size_t file);

  id<MTLDevice> device_;
  std::map<size_t, id<MTLLibrary>> libraries_;  // by file
  std::map<Key, id<MTLComputePipelineState>> made_;
  id<MTLBinaryArchive> archive_;
  std::string archive_path_;
  bool changed_ = false;
};

}  // namespace foundry
