// NVRTC, NVIDIA's compiler as a library, opened as the process runs. Source: NVRTC's documentation,
// docs.nvidia.com/cuda/nvrtc.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace foundry::cuda {

struct NvrtcFunctions;

class Compiler {
 public:
  struct Text {
    const char* name;
    const char* text;
  };

  /// `path`: of libnvrtc; empty: what the system's loader finds by name. ValueError where there is none, or an old one.
  static std::shared_ptr<Compiler> open(const std::string& path);
  ~Compiler();

  int major() const { return major_; }
  /// "13.0"
  std::string version() const;
  /// The newest that it makes code for and that runs on such a GPU, "sm_90a"; empty: it knows none.
  std::string architecture(int major, int minor) const;
  /// A cubin of `source` and the headers that it includes. `log`, where it is given, is what the compiler said.
  /// ConsistencyError: it does not compile.
  std::vector<std::byte> compile(const std::string& name, const std::string& source, std::span<const Text> headers,
                                 const std::vector<std::string>& options, std::string* log = nullptr) const;

 private:
  Compiler();
  std::unique_ptr<NvrtcFunctions> functions_;
  int major_ = 0, minor_ = 0;
  std::vector<int> architectures_;  // 80, 86, ..., ascending
};

}  // namespace foundry::cuda
