// Compute pipelines by kernel name and function constants: compiled from the source that the library carries, a file's
// kernels of one format at a time as they are asked for, and kept on disk between runs where there is a folder for
// them.
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
  /// `options.cache_dir` empty: nothing is kept. `options.kernel_library`: kernels that need not be compiled from
  /// source; a file that is missing or can't be read is no error.
  Pipelines(id<MTLDevice> device, const DeviceOptions& options);

  /// ConsistencyError: no such kernel, or one that does not compile.
  id<MTLComputePipelineState> get(const Dispatch& launch);
  /// Writes what was compiled since the last save. A folder that can't be written is no error: the next run compiles
  /// again.
  void save();

 private:
  using Key = std::pair<std::array<char, 64>, uint32_t>;
  id<MTLFunction> function(const Dispatch& launch);
  id<MTLLibrary> library(size_t file, const std::string& part);

  id<MTLDevice> device_;
  id<MTLLibrary> built_;                                                // with the wheel, or nil
  std::map<std::pair<size_t, std::string>, id<MTLLibrary>> libraries_;  // by file, and part of it
  std::map<Key, id<MTLComputePipelineState>> made_;
  id<MTLBinaryArchive> archive_;
  std::string archive_path_;
  bool changed_ = false;
};

}  // namespace foundry
