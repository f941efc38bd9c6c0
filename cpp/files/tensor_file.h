// A file of tensors whose table the caller reads: he says what lies where, and each is checked against the file's
// length. Safetensors are read so: their table is JSON, which the core does not read.
#pragma once
#include <map>
#include <memory>

#include "base/mapped_file.h"
#include "files/weight_source.h"

namespace foundry {

class TensorFile final : public WeightSource {
 public:
  /// As MappedFile. With `header_only` views have no bytes: for plans, of a file of any size.
  explicit TensorFile(const std::string& path, bool header_only = false);

  /// Bytes from `offset` on: fewer than asked for only where the file ends.
  std::string read(uint64_t offset, uint64_t bytes) const;
  uint64_t file_bytes() const { return file_.file().size(); }
  /// Its bytes are rows x cols of the type, from `offset` on. ModelFormatError where they reach past the file's end or
  /// into another tensor's, or the name is taken. plus: see WeightView.
  void add(const std::string& name, DType type, uint64_t rows, uint64_t cols, uint64_t offset, float plus = 0);
  /// Bytes that something is made of. ModelFormatError as for a tensor.
  void add_bytes(const std::string& name, uint64_t bytes, uint64_t offset);

  const std::string& path() const override { return file_.file().path(); }
  std::vector<std::string_view> names() const override;
  bool has(std::string_view name) const override { return views_.count(name) != 0; }
  WeightView view(std::string_view name) const override;
  std::optional<FileBytes> bytes_of(std::string_view name) const override;
  uint64_t fingerprint() const override;
  void advise(const std::byte* data, uint64_t bytes, Need need) const override { file_.advise(data, bytes, need); }

 private:
  struct Taken {
    std::string name;
    uint64_t bytes;
  };
  void take(const std::string& name, const std::string& what, uint64_t bytes, uint64_t offset);
  [[noreturn]] void fail_past_end(const std::string& name, const std::string& what, uint64_t offset) const;
  [[noreturn]] void fail(const std::string& name, const std::string& expected, const std::string& found) const;
  MappedFile file_;
  bool header_only_;
  std::map<std::string, WeightView, std::less<>> views_;
  std::map<std::string, FileBytes, std::less<>> bytes_;
  std::map<uint64_t, Taken> by_offset_;
};

}  // namespace foundry
