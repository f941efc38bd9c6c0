// Weights that a file has in another arrangement than a graph wants: a tensor for each expert, gate and up in one, rows
// or columns in another order. Their rows are made from the file's whenever a device reads them.
#pragma once
#include <map>
#include <memory>
#include <set>

#include "files/weight_source.h"

namespace foundry {

/// How one weight is made of others. An order says which of their rows (columns) each of ours is; an empty one leaves
/// them as they lie. Orders are of a matrix, behind the transposition.
struct Arrangement {
  std::vector<std::string> parts;  // a tensor for each matrix, all of one shape and type; or one that has all of them
  uint64_t matrices = 1;           // in a single part
  bool transposed = false;         // the file has the columns as rows
  std::vector<uint32_t> rows = {}, cols = {};
  bool minus_exp = false;  // each value x of a vector stands for -e^x
};

class ArrangedFiles final : public WeightSource {
 public:
  explicit ArrangedFiles(std::shared_ptr<const WeightSource> files);

  /// ModelFormatError where the name is taken, a part is missing, or parts are not of one shape and type;
  /// ValueError for an order that goes past what there is.
  void add(const std::string& name, Arrangement how);

  /// MXFP4 as gpt-oss has it: nibbles of 32 values in 16 bytes, two neighbours in each, and their scales apart; rows of
  /// `cols` values. ModelFormatError where the bytes are not there or not as many.
  void add_mxfp4(const std::string& name, const std::string& nibbles, const std::string& scales, uint64_t matrices,
                 uint64_t rows, uint64_t cols, std::vector<uint32_t> order);

  const std::string& path() const override { return files_->path(); }
  /// Of the file's those that are no parts, then those that were added.
  std::vector<std::string_view> names() const override;
  bool has(std::string_view name) const override { return made_.count(name) != 0 || files_->has(name); }
  WeightView view(std::string_view name) const override;
  std::optional<FileBytes> bytes_of(std::string_view name) const override { return files_->bytes_of(name); }
  uint64_t fingerprint() const override { return files_->fingerprint(); }
  void advise(const std::byte* data, uint64_t bytes, Need need) const override { files_->advise(data, bytes, need); }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& expected, const std::string& found) const;
  void put(WeightView view, uint64_t rows_of_matrix);
  std::shared_ptr<const WeightSource> files_;
  std::map<std::string, WeightView, std::less<>> made_;
  std::set<std::string, std::less<>> parts_;  // names of tensors that something is made of
};

}  // namespace foundry
