// A file mapped for reading: weights are used where they lie, and the system reads and drops their pages as it sees
// fit. A file that is shortened by someone else while it is mapped is beyond our power (SIGBUS), as for every mapping.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/input_file.h"

namespace foundry {

/// When bytes of a file are wanted. Advice: they can be read whatever was told.
enum class Need { now, not_now };

class MappedFile {
 public:
  /// As InputFile; MemoryLimitError where the address space has no room for it, IoError where it can't be mapped.
  /// Of a longer file only the first `most_bytes` are mapped.
  explicit MappedFile(const std::string& path, uint64_t most_bytes = UINT64_MAX);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  /// Bytes that are mapped.
  uint64_t size() const { return size_; }
  /// The file itself, which stays open.
  const InputFile& file() const { return file_; }

  // Advice on a range of the file (it is clamped to what is mapped). The contents stay readable whatever is advised.
  /// `data` is a place in the map; of others nothing is told.
  void advise(const std::byte* data, uint64_t bytes, Need need) const;
  /// Read ahead, all of the range and nothing around it: a page that is only met is read with what lies around it, by
  /// some systems with megabytes.
  void advise_needed(uint64_t offset, uint64_t bytes) const;
  /// Read far ahead: the range is read once from front to back.
  void advise_sequential(uint64_t offset, uint64_t bytes) const;
  /// Drop the range's pages from this process; only whole pages, so neighbours keep theirs.
  void advise_unneeded(uint64_t offset, uint64_t bytes) const;

 private:
  InputFile file_;
  uint64_t size_ = 0;
  const std::byte* data_ = nullptr;
};

}  // namespace foundry
