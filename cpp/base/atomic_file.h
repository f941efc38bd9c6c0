// A file that appears whole or not at all: written beside its place, flushed to the disk, then renamed.
#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace foundry {

class AtomicFile {
 public:
  /// IoError where the folder can't be written to.
  explicit AtomicFile(std::string path);
  /// Without commit(): what was written is taken away, the old file stays.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  /// From here on the path has the new contents, also after a loss of power.
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;
  std::string path_, part_;
  int fd_ = -1;
};

}  // namespace foundry
