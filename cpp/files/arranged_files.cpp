#include "files/arranged_files.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "formats/dtype.h"
#include "quant_blocks.h"

namespace foundry {
namespace {

/// Rows of matrices that lie side by side in one order, gathered from the parts.
class Gathered final : public MadeRows {
 public:
  Gathered(std::shared_ptr<const WeightSource> files, std::vector<WeightView> parts, Arrangement how, uint64_t rows,
           uint64_t cols)
      : files_(std::move(files)), parts_(std::move(parts)), how_(std::move(how)), rows_(rows), cols_(cols) {}

  bool whole() const override {
    return std::all_of(parts_.begin(), parts_.end(), [](const WeightView& part) { return part.data != nullptr; });
  }

  void rows(uint64_t first, uint64_t n, std::byte* to) const override {
    if (block_bytes(parts_.front().type) == sizeof(uint16_t))
      gather<uint16_t>(first, n, to);
    else
      gather<uint32_t>(first, n, to);
  }

  void advise(uint64_t first, uint64_t n, Need need) const override {
    for (uint64_t m = first / rows_; m <= (first + n - 1) / rows_; ++m) files_->advise(matrix(m), matrix_bytes(), need);
  }

 private:
  const std::byte* matrix(uint64_t m) const {
    return parts_.size() > 1 ? parts_[m].data : parts_[0].data + matrix_bytes() * m;
  }
  uint64_t matrix_bytes() const { return parts_[0].bytes / (parts_.size() > 1 ? 1 : how_.matrices); }
  static uint64_t place(const std::vector<uint32_t>& order, uint64_t i) { return order.empty() ? i : order[i]; }

  template <class Value>  // the bits of one, in whatever type
  void gather(uint64_t first, uint64_t n, std::byte* to) const {
    const uint64_t theirs = parts_.front().cols;  // columns of a part
    for (uint64_t i = 0; i < n; ++i) {
      const std::byte* from = matrix((first + i) / rows_);
      const uint64_t row = place(how_.rows, (first + i) % rows_);
      std::byte* out = to + i * cols_ * sizeof(Value);
      if (!how_.transposed && how_.cols.empty()) {
        std::memcpy(out, from + row * theirs * sizeof(Value), cols_ * sizeof(Value));
        continue;
      }
      for (uint64_t c = 0; c < cols_; ++c) {
        const uint64_t col = place(how_.cols, c);
        const uint64_t at = how_.transposed ? col * theirs + row : row * theirs + col;
        std::memcpy(out + c * sizeof(Value), from + at * sizeof(Value), sizeof(Value));
      }
    }
  }

  std::shared_ptr<const WeightSource> files_;
  std::vector<WeightView> parts_;
  Arrangement how_;
  uint64_t rows_, cols_;  // of a matrix of ours
};

constexpr uint64_t kMxfp4Values = BlockSize<DType::mxfp4>::elements, kMxfp4Nibbles = kMxfp4Values / 2;

/// Blocks of MXFP4 put together of nibbles and scales.
class Mxfp4Rows final : public MadeRows {
 public:
  Mxfp4Rows(std::shared_ptr<const WeightSource> files, FileBytes nibbles, FileBytes scales, uint64_t theirs,
            uint64_t blocks, std::vector<uint32_t> order)
      : files_(std::move(files)),
        nibbles_(nibbles),
        scales_(scales),
        theirs_(theirs),
        blocks_(blocks),
        order_(std::move(order)) {}

  bool whole() const override { return nibbles_.data != nullptr && scales_.data != nullptr; }

  void rows(uint64_t first, uint64_t n, std::byte* to) const override {
    auto* block = reinterpret_cast<BlockMXFP4*>(to);
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t from = their_row(first + i) * blocks_;
      for (uint64_t b = from; b < from + blocks_; ++b) put(b, *block++);
    }
  }

  void advise(uint64_t first, uint64_t n, Need need) const override {
    const uint64_t from = first / ours() * theirs_ * blocks_, to = ((first + n - 1) / ours() + 1) * theirs_ * blocks_;
    files_->advise(nibbles_.data + from * kMxfp4Nibbles, (to - from) * kMxfp4Nibbles, need);
    files_->advise(scales_.data + from, to - from, need);
  }

 private:
  uint64_t ours() const { return order_.empty() ? theirs_ : order_.size(); }  // rows of a matrix
  uint64_t their_row(uint64_t row) const {
    return row / ours() * theirs_ + (order_.empty() ? row % ours() : order_[row % ours()]);
  }
  /// Values i and i + 16 share a byte of ours, 2 i and 2 i + 1 one of theirs.
  void put(uint64_t b, BlockMXFP4& block) const {
    const auto* nibbles = reinterpret_cast<const uint8_t*>(nibbles_.data) + b * kMxfp4Nibbles;
    const auto code = [nibbles](uint64_t i) { return nibbles[i / 2] >> (i % 2 * 4) & 15; };
    block.exponent = static_cast<uint8_t>(scales_.data[b]);
    for (uint64_t i = 0; i < kMxfp4Nibbles; ++i)
      block.nibbles[i] = static_cast<uint8_t>(code(i) | code(i + kMxfp4Nibbles) << 4);
  }

  std::shared_ptr<const WeightSource> files_;
  FileBytes nibbles_, scales_;
  uint64_t theirs_, blocks_;  // rows of a matrix of theirs, blocks of a row
  std::vector<uint32_t> order_;
};

/// How many rows or columns there are of n in this order.
uint64_t ordered(const std::string& name, const std::vector<uint32_t>& order, uint64_t n) {
  for (const uint32_t one : order)
    if (one >= n)
      throw ValueError(name + ": order: expected numbers below " + std::to_string(n) + ", found " +
                       std::to_string(one));
  return order.empty() ? n : order.size();
}

}  // namespace

ArrangedFiles::ArrangedFiles(std::shared_ptr<const WeightSource> files) : files_(std::move(files)) {}

void ArrangedFiles::add(const std::string& name, Arrangement how) {
  if (has(name)) fail(name, "it once", "it twice");
  if (how.parts.empty() || how.matrices == 0) throw ValueError(name + ": parts: expected at least one, found none");
  std::vector<WeightView> parts;
  for (const std::string& part : how.parts) parts.push_back(files_->view(part));
  const WeightView& first = parts.front();
  const auto shape = [](const WeightView& v) {
    return std::string(dtype_name(v.type)) + " [" + std::to_string(v.rows) + ", " + std::to_string(v.cols) + "]";
  };
  if (block_elements(first.type) != 1)
    fail(name, "it made of values", "blocks of " + std::string(dtype_name(first.type)));
  for (const WeightView& part : parts)
    if (part.rows != first.rows || part.cols != first.cols || part.type != first.type)
      fail(name, "\"" + part.name + "\" as " + shape(first) + ", like \"" + first.name + "\"", shape(part));
  if (parts.size() == 1 && first.rows % how.matrices != 0)
    fail(name, "rows of " + std::to_string(how.matrices) + " matrices", shape(first));

  const uint64_t matrices = parts.size() == 1 ? how.matrices : parts.size();
  uint64_t rows = parts.size() == 1 ? first.rows / matrices : first.rows, cols = first.cols;
  if (how.transposed) std::swap(rows, cols);
  rows = ordered(name, how.rows, rows), cols = ordered(name, how.cols, cols);

  WeightView view;
  view.name = name, view.type = first.type, view.matrices = matrices, view.cols = cols, view.minus_exp = how.minus_exp;
  for (const std::string& part : how.parts) parts_.insert(part);
  if (parts.size() == 1 && !how.transposed && how.rows.empty() && how.cols.empty())
    view.data = first.data, view.offset = first.offset;  // it lies there as it is
  else
    view.made = std::make_shared<Gathered>(files_, std::move(parts), std::move(how), rows, cols);
  put(std::move(view), rows);
}

void ArrangedFiles::add_mxfp4(const std::string& name, const std::string& nibbles, const std::string& scales,
                              uint64_t matrices, uint64_t rows, uint64_t cols, std::vector<uint32_t> order) {
  if (has(name)) fail(name, "it once", "it twice");
  const uint64_t blocks = cols / kMxfp4Values;
  const auto n = checked_mul(matrices, rows), all = n ? checked_mul(*n, blocks) : std::nullopt;
  if (!all || *all == 0 || *all > UINT64_MAX / kMxfp4Nibbles || cols % kMxfp4Values != 0)
    fail(name, "rows of whole blocks of mxfp4", "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]");
  const auto found = [&](const std::string& part, uint64_t bytes) {
    const auto there = files_->bytes_of(part);
    if (!there || there->bytes != bytes)
      fail(name, std::to_string(bytes) + " bytes of \"" + part + "\"",
           there ? std::to_string(there->bytes) : std::string("none"));
    return *there;
  };
  const FileBytes codes = found(nibbles, *all * kMxfp4Nibbles), exponents = found(scales, *all);
  const uint64_t ours = ordered(name, order, rows);

  WeightView view;
  view.name = name, view.type = DType::mxfp4, view.matrices = matrices, view.cols = cols;
  view.made = std::make_shared<Mxfp4Rows>(files_, codes, exponents, rows, blocks, std::move(order));
  put(std::move(view), ours);
}

void ArrangedFiles::fail(const std::string& name, const std::string& expected, const std::string& found) const {
  throw ModelFormatError(path() + ": tensor \"" + name + "\": expected " + expected + ", found " + found);
}

/// With its rows and bytes, which are known to be a number.
void ArrangedFiles::put(WeightView view, uint64_t rows_of_matrix) {
  const auto rows = checked_mul(view.matrices, rows_of_matrix);
  const auto row = checked_mul(view.cols / block_elements(view.type), block_bytes(view.type));
  const auto bytes = rows && row ? checked_mul(*rows, *row) : std::nullopt;
  if (!bytes) fail(view.name, "what memory could hold", std::to_string(view.matrices) + " matrices");
  view.rows = *rows, view.bytes = *bytes;
  std::string name = view.name;
  made_.emplace(std::move(name), std::move(view));
}

std::vector<std::string_view> ArrangedFiles::names() const {
  std::vector<std::string_view> names;
  for (const std::string_view name : files_->names())
    if (parts_.count(name) == 0) names.push_back(name);
  for (const auto& [name, view] : made_) names.push_back(name);
  return names;
}

WeightView ArrangedFiles::view(std::string_view name) const {
  const auto entry = made_.find(name);
  return entry == made_.end() ? files_->view(name) : entry->second;
}

}  // namespace foundry
