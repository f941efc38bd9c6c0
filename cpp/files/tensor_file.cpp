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

void TensorFile::add(const std::string& name, DType type, uint64_t rows, uint64_t cols, uint64_t offset, float plus) {
  const auto fail = [&](const std::string& expected, const std::string& found) {
    throw ModelFormatError(path() + ": tensor \"" + name + "\": expected " + expected + ", found " + found);
  };
  if (views_.count(name) != 0) fail("each name once", "it twice");
  const Format& format = format_of(type);
  if (rows == 0 || cols == 0 || cols % format.block_elements != 0)
    fail("rows of whole blocks of " + std::string(dtype_name(type)),
         "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]");
  const auto row = checked_mul(cols / format.block_elements, format.block_bytes);
  const auto bytes = row ? checked_mul(rows, *row) : std::nullopt;
  const auto end = bytes ? checked_add(offset, *bytes) : std::nullopt;
  if (!end || *end > file_bytes())
    fail("[" + std::to_string(rows) + ", " + std::to_string(cols) + "] inside the file of " +
             std::to_string(file_bytes()) + " bytes",
         "byte " + std::to_string(offset));
  // Safetensors' writers put the wider types first, so that every value lies where its type wants it.
  if (offset % std::min<uint32_t>(format.block_bytes, 4) != 0 && format.block_elements == 1)
    fail("it at a multiple of " + std::to_string(format.block_bytes) + " bytes", "at byte " + std::to_string(offset));
  const auto next = by_offset_.lower_bound(offset);
  const WeightView* beside = nullptr;
  if (next != by_offset_.end() && next->first < *end) beside = next->second;
  if (next != by_offset_.begin())
    if (const WeightView* before = std::prev(next)->second; before->offset + before->bytes > offset) beside = before;
  if (beside != nullptr) fail("bytes of its own", "those of \"" + beside->name + "\" too");

  WeightView view;
  view.name = name, view.type = type, view.rows = rows, view.cols = cols, view.bytes = *bytes, view.offset = offset;
  view.data = header_only_ ? nullptr : file_.data() + offset;
  view.plus = plus;
  const auto entry = views_.emplace(name, std::move(view)).first;
  by_offset_.emplace(offset, &entry->second);
}

std::vector<std::string_view> TensorFile::names() const {
  std::vector<std::string_view> names;
  for (const auto& [offset, view] : by_offset_) names.push_back(view->name);
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

void TensorFile::forget(const std::byte* data, uint64_t bytes) const {
  if (data < file_.data() || data >= file_.data() + file_.size()) return;
  file_.advise_unneeded(static_cast<uint64_t>(data - file_.data()), bytes);
}

}  // namespace foundry
