// A GGUF file: metadata by key, tensors by name, and their bytes in place. Everything is checked when the file is
// opened, so a view never points outside it. Layout (versions 2 and 3, little endian):
//   "GGUF" u32 version, u64 n_tensors, u64 n_keys, n_keys x (string key, u32 type, value),
//   n_tensors x (string name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset), padding to general.alignment, tensor data
//   A string is u64 length and bytes; an array is u32 element type, u64 count and elements, which may be arrays again.
// Source: GGUF specification, github.com/ggml-org/ggml, docs/gguf.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "files/weight_source.h"

namespace foundry {

class MappedFile;

/// GGUF's numbers of value types.
enum class MetaType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
const char* meta_type_name(MetaType type);

class MetaArray;
/// A value of the metadata. Strings and arrays stay where they lie in the file, and live as long as it. Strings are the
/// file's bytes: GGUF asks for UTF-8, and files are known that break it (only keys and tensor names are checked).
using MetaValue = std::variant<bool, uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t, float,
                               double, std::string_view, MetaArray>;

/// An array as it lies in the file: nothing is copied until its elements are asked for. They were checked when the file
/// was opened, and are again each time, for the file may have been written to since.
class MetaArray {
 public:
  MetaArray(MetaType type, uint64_t size, std::span<const std::byte> bytes) : type_(type), size_(size), bytes_(bytes) {}
  MetaType type() const { return type_; }
  uint64_t size() const { return size_; }
  /// Of all elements, in the file.
  uint64_t bytes() const { return bytes_.size(); }
  /// Calls with each element in order. ModelFormatError if the bytes are no such array any more.
  void each(const std::function<void(const MetaValue&)>& call) const;
  /// The same bytes.
  bool operator==(const MetaArray& other) const;

 private:
  MetaType type_;
  uint64_t size_;
  std::span<const std::byte> bytes_;
};

struct GgufTensor {
  std::string name;
  uint32_t type = 0;            // GGML's number
  const char* type_name = "";   // "Q4_1"
  bool supported = false;       // view() gives it
  std::vector<uint64_t> shape;  // as the file orders it: the contiguous dimension (cols) first; 1 to 4 dimensions
  uint64_t n_elements = 0;
  uint64_t offset = 0;  // from the beginning of the file
  uint64_t bytes = 0;
};

class GgufFile final : public WeightSource {
 public:
  /// Maps and checks a file. ModelFormatError says what is wrong, at which byte, what was expected and what was found.
  static std::shared_ptr<GgufFile> open(const std::string& path);
  /// The same of the header alone: of the file as much is mapped as that takes, views have no bytes, and the tensors'
  /// extents are checked against the file's length. For plans: it takes as long for a file of any size.
  static std::shared_ptr<GgufFile> open_header(const std::string& path);
  /// The same from memory, which must outlive the object; it should be 8-byte aligned where views are read as wider
  /// types.
  static std::shared_ptr<GgufFile> parse(std::span<const std::byte> bytes, const std::string& source_name = "memory");
  ~GgufFile() override;
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& path() const override { return source_; }
  uint64_t file_bytes() const { return file_bytes_; }
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  const std::map<std::string, MetaValue>& metadata() const { return metadata_; }
  /// Bytes of the file that keys and values take.
  uint64_t metadata_bytes() const { return metadata_bytes_; }
  /// In the file's order.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// Null when there is none of that name.
  const GgufTensor* find(std::string_view name) const;
  std::vector<std::string_view> names() const override;
  bool has(std::string_view name) const override { return find(name) != nullptr; }
  WeightView view(std::string_view name) const override;
  uint64_t fingerprint() const override;
  void advise(const std::byte* data, uint64_t bytes, Need need) const override;

 private:
  GgufFile(std::span<const std::byte> bytes, uint64_t file_bytes, std::string source, std::unique_ptr<MappedFile> file);

  std::string source_;
  std::unique_ptr<MappedFile> file_;  // null when parsed from memory
  std::span<const std::byte> bytes_;  // the file's, or the beginning of it
  uint64_t file_bytes_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 0;
  std::map<std::string, MetaValue> metadata_;
  uint64_t metadata_bytes_ = 0;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;  // into tensors_, whose names stay where they are
};

}  // namespace foundry
