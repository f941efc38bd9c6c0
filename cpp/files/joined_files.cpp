#include "files/joined_files.h"

#include <span>

#include "base/error.h"
#include "base/hash.h"

namespace foundry {

JoinedFiles::JoinedFiles(std::vector<std::shared_ptr<const WeightSource>> files) : files_(std::move(files)) {
  if (files_.empty()) throw ValueError("files: expected at least one, found none");
  for (size_t i = 0; i < files_.size(); ++i) {
    for (const std::string_view name : files_[i]->names()) {
      const auto [entry, added] = by_name_.emplace(name, i);
      if (!added)
        throw ModelFormatError(files_[i]->path() + ": tensor \"" + std::string(name) +
                               "\": expected each name once, found it in " + files_[entry->second]->path() + " too");
    }
  }
}

std::vector<std::string_view> JoinedFiles::names() const {
  std::vector<std::string_view> names;
  for (const auto& file : files_)
    for (const std::string_view name : file->names()) names.push_back(name);
  return names;
}

WeightView JoinedFiles::view(std::string_view name) const {
  const auto entry = by_name_.find(name);
  if (entry == by_name_.end())
    throw ModelFormatError(path() + ": tensor \"" + std::string(name) + "\": expected in one of " +
                           std::to_string(files_.size()) + " files, found " + std::to_string(by_name_.size()) +
                           " tensors of other names");
  return files_[entry->second]->view(name);
}

std::optional<FileBytes> JoinedFiles::bytes_of(std::string_view name) const {
  for (const auto& file : files_)
    if (const auto found = file->bytes_of(name)) return found;
  return std::nullopt;
}

uint64_t JoinedFiles::fingerprint() const {
  std::vector<uint64_t> each;
  for (const auto& file : files_) each.push_back(file->fingerprint());
  return hash64(std::as_bytes(std::span(each)));
}

void JoinedFiles::advise(const std::byte* data, uint64_t bytes, Need need) const {
  for (const auto& file : files_) file->advise(data, bytes, need);  // of each, what lies in it
}

}  // namespace foundry
