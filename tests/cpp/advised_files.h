// Files that note what they are told of their bytes.
#pragma once
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "files/weight_source.h"

namespace foundry::test {

class Advised final : public WeightSource {
 public:
  explicit Advised(std::shared_ptr<const WeightSource> files) : files_(std::move(files)) {}
  mutable std::vector<std::tuple<const std::byte*, uint64_t, Need>> told;

  const std::string& path() const override { return files_->path(); }
  std::vector<std::string_view> names() const override { return files_->names(); }
  bool has(std::string_view name) const override { return files_->has(name); }
  WeightView view(std::string_view name) const override { return files_->view(name); }
  uint64_t fingerprint() const override { return files_->fingerprint(); }
  void advise(const std::byte* data, uint64_t bytes, Need need) const override { told.emplace_back(data, bytes, need); }

 private:
  std::shared_ptr<const WeightSource> files_;
};

}  // namespace foundry::test
