// Histories on disk: Session::save and Session::restore. A restored session has its pages at once, and their bytes with the
// step that first needs them, each checked against its checksum.
#pragma once
#include <memory>
#include <string>

#include "base/input_file.h"
#include "kv/kv_image.h"
#include "kv/states.h"

namespace foundry {

class CompiledModel;

/// A saved history whose pages are not yet read. It keeps the file open, so that they come from the file that was checked, whatever
/// has its name by then.
struct SavedHistory {
  InputFile file;
  KvImage image;

  /// Reads the header and checks it against the model: ModelFormatError for another model, device or layout, or a damaged file.
  SavedHistory(const std::string& path, const CompiledModel& model);
  /// Reads the pages of the first n_tokens into those of the tables, and the states that are held into theirs. What
  /// is checked is the copy, which nobody else writes: a page that is accepted is the one that was saved.
  /// ModelFormatError names a page that is damaged or cut off; IoError.
  void read(std::vector<PageTable>& tables, const States& states, uint64_t n_tokens) const;
};

/// Writes tokens, pages and states; the file appears whole or not at all.
void write_history(const std::string& path, const CompiledModel& model, const std::vector<int32_t>& tokens,
                   const std::vector<PageTable>& tables, const States& states);

}  // namespace foundry
