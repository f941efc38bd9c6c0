// Where a model's weights come from: one file, or several, whatever their format.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/weight_view.h"

namespace foundry {

/// Bytes of a file that are no weight by themselves, but what one is made of.
struct FileBytes {
  const std::byte* data = nullptr;  // null: the file's header alone was opened
  uint64_t bytes = 0;
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// The file, or of several the first; for messages.
  virtual const std::string& path() const = 0;
  /// Names of all tensors, in the order of the files.
  virtual std::vector<std::string_view> names() const = 0;
  virtual bool has(std::string_view name) const = 0;
  /// rows x cols; one dimension n is [1, n], and dimensions past the second are counted into the rows, and
  /// into the matrices. Without bytes where the header alone was opened. ModelFormatError if there is no such tensor or its type is not supported.
  virtual WeightView view(std::string_view name) const = 0;
  /// Those that were given this name.
  virtual std::optional<FileBytes> bytes_of(std::string_view) const { return std::nullopt; }
  /// Tells models apart: a hash of every byte of every file, made once for each state of it (fingerprint.cpp).
  /// ModelFormatError where a file was written to since it was opened; IoError. Not proof against malice.
  virtual uint64_t fingerprint() const = 0;
  /// When these bytes of a file are wanted: now, and they are read, nothing around them; or not for now, and their
  /// pages may leave memory, and come back when read.
  virtual void advise(const std::byte* data, uint64_t bytes, Need need) const = 0;
};

}  // namespace foundry
