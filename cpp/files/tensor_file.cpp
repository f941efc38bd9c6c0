#include "files/tensor_file.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "base/checked.h"
#include "base/error.h"
#include "files/fingerprint.h"
#include "formats/table.h"

namespace foundry {

TensorFile::TensorFile(const std::string& path, bool header_only)
    : file_(path, header_only ? 1 : UINT64_MAX), header_only_(header_only) {}

std::string TensorFile::read(uint64_t offset, uint64_t bytes) const {
  std::string found(static_cast<size_t>(std::min(bytes, file_bytes() - std::min(offset, file_bytes()))), '\0');
  const uint64_t n = file_.file().read(offset, std::as_writable_bytes(std::span(found)));
  found.resize(static_cast<size_t>(n));
  return found;
}

void TensorFile::fail(const std::string& name, const std::string& expected, const std::string& found) const {
  throw ModelFormatError(path() + ": tensor \"" + name + "\": expected " + expected + ", found " + found);
}

void TensorFile::fail_past_end(const std::string& name, const std::string& what, uint64_t offset) const {
  fail(name, what + " inside the file of " + std::to_string(file_bytes()) + " bytes", "byte " + std::to_string(offset));
}

/// The bytes from there on, which nobody else has; `what` they are.
void TensorFile::take(const std::string& name, const std::string& what, uint64_t bytes, uint64_t offset) {
  if (has(name) || bytes_.count(name) != 0) fail(name, "each name once", "it twice");
  const auto end = checked_add(offset, bytes);
  if (!end || *end > file_bytes()) fail_past_end(name, what, offset);
  const auto next = by_offset_.lower_bound(offset);
  const Taken* beside = nullptr;
  if (next != by_offset_.end() && next->first < *end) beside = &next->second;
  if (next != by_offset_.begin())
    if (const auto before = std::prev(next); before->first + before->second.bytes > offset) beside = &before->second;
  if (beside != nullptr) fail(name, "bytes of its own", "those of \"" + beside->name + "\" too");
  by_offset_.emplace(offset, Taken{name, bytes});
}

void TensorFile::add(const std::string& name, DType type, uint64_t rows, uint64_t cols, uint64_t offset, float plus) {
  const Format& format = format_of(type);
  const auto shape = [&] { return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]"; };
  if (rows == 0 || cols == 0 || cols % format.block_elements != 0)
    fail(name, "rows of whole blocks of " + std::string(dtype_name(type)), shape());
  const auto row = checked_mul(cols / format.block_elements, format.block_bytes);
  const auto bytes = row ? checked_mul(rows, *row) : std::nullopt;
  if (!bytes) fail_past_end(name, shape(), offset);
  // Safetensors' writers put the wider types first, so that every value lies where its type wants it.
  if (offset % std::min<uint32_t>(format.block_bytes, 4) != 0 && format.block_elements == 1)
    fail(name, "it at a multiple of " + std::to_string(format.block_bytes) + " bytes",
         "at byte " + std::to_string(offset));
  take(name, shape(), *bytes, offset);

  WeightView view;
  view.name = name, view.type = type, view.rows = rows, view.cols = cols, view.bytes = *bytes, view.offset = offset;
  view.data = header_only_ ? nullptr : file_.data() + offset;
  view.plus = plus;
  views_.emplace(name, std::move(view));
}

void TensorFile::add_bytes(const std::string& name, uint64_t bytes, uint64_t offset) {
  if (bytes == 0) fail(name, "bytes", "none");
  take(name, std::to_string(bytes) + " bytes", bytes, offset);
  bytes_.emplace(name, FileBytes{header_only_ ? nullptr : file_.data() + offset, bytes});
}

std::optional<FileBytes> TensorFile::bytes_of(std::string_view name) const {
  const auto entry = bytes_.find(name);
  return entry == bytes_.end() ? std::nullopt : std::optional(entry->second);
}

std::vector<std::string_view> TensorFile::names() const {
  std::vector<std::string_view> names;
  for (const auto& [offset, taken] : by_offset_)
    if (has(taken.name)) names.push_back(taken.name);
  return names;
}

WeightView TensorFile::view(std::string_view name) const {
  const auto entry = views_.find(name);
  if (entry == views_.end())
    throw ModelFormatError(path() + ": tensor \"" + std::string(name) + "\": expected in the file, found " +
                           std::to_string(views_.size()) + " tensors of other names");
  return entry->second;
}

uint64_t TensorFile::fingerprint() const { return fingerprint_of(file_.file()); }

}  // namespace foundry
