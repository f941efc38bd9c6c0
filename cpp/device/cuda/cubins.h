// Compiled kernels on disk, a file each, in a folder for each kind of GPU, driver, compiler and state of the kernels.
// A file that is damaged is as none. A folder that nobody has written into for two weeks goes.
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace foundry::cuda {

class Cubins {
 public:
  /// `cache_dir` empty, or a place that can't be written to: nothing is kept, which is no error.
  Cubins(const std::string& cache_dir, const std::string& kind);

  std::optional<std::vector<std::byte>> load(const std::string& name) const;
  void save(const std::string& name, const std::vector<std::byte>& cubin) const;

 private:
  std::string path_of(const std::string& name) const;
  std::string folder_;
};

}  // namespace foundry::cuda
