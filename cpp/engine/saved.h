// Histories on disk: Session::save and CompiledModel::restore. A restored session has its pages at once, and their bytes with the
// step that first needs them, each checked against its checksum.
#pragma once
#include <memory>
#include <string>

#include "base/mapped_file.h"
#include "kv/kv_image.h"

namespace foundry {

class CompiledModel;

/// A saved history that is mapped and not yet read.
struct SavedHistory {
  std::string path;
  MappedFile file;
  KvImage image;

  /// Maps and checks the header against the model: ModelFormatError for another model, device or layout, or a damaged file.
  SavedHistory(const std::string& path, const CompiledModel& model);
  /// Copies the pages of the first n_tokens into those of the tables. ModelFormatError names a damaged page.
  void read(std::vector<PageTable>& tables, uint64_t n_tokens) const;
};

/// Writes tokens and pages; the file appears whole or not at all.
void write_history(const std::string& path, const CompiledModel& model, const std::vector<int32_t>& tokens,
                   const std::vector<PageTable>& tables);

}  // namespace foundry
