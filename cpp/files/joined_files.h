// Several files that are one model: the parts of a split file, or the shards of a directory.
#pragma once
#include <map>
#include <memory>

#include "files/weight_source.h"

namespace foundry {

class JoinedFiles final : public WeightSource {
 public:
  /// ModelFormatError where two of them have a tensor of the same name. There is at least one file.
  explicit JoinedFiles(std::vector<std::shared_ptr<const WeightSource>> files);

  const std::string& path() const override { return files_.front()->path(); }
  std::vector<std::string_view> names() const override;
  bool has(std::string_view name) const override { return by_name_.count(name) != 0; }
  WeightView view(std::string_view name) const override;
  std::optional<FileBytes> bytes_of(std::string_view name) const override;
  uint64_t fingerprint() const override;
  void advise(const std::byte* data, uint64_t bytes, Need need) const override;

 private:
  std::vector<std::shared_ptr<const WeightSource>> files_;
  std::map<std::string, size_t, std::less<>> by_name_;  // into files_
};

}  // namespace foundry
