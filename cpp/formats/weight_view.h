// A tensor of the model file, as the reader hands it to a device.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/mapped_file.h"
#include "formats/dtype.h"

namespace foundry {

/// Rows that a file has in another arrangement: they are made when they are read. From several threads at once.
class MadeRows {
 public:
  virtual ~MadeRows() = default;
  /// False where only the file's header was read, and there is nothing to make them of.
  virtual bool whole() const = 0;
  /// Rows from `first` on, one behind the other, as many bytes each as a row of the view has.
  virtual void rows(uint64_t first, uint64_t n, std::byte* to) const = 0;
  /// When what these rows are made of is wanted.
  virtual void advise(uint64_t first, uint64_t n, Need need) const = 0;
};

/// A tensor of the model file: rows x cols, row-major, cols in blocks of its type. Its bytes are mapped and outlive the
/// device's weights; or only the file's header was read, and there are none: enough for a plan.
struct WeightView {
  std::string name;
  DType type = DType::f32;
  uint64_t rows = 0;
  uint64_t cols = 0;
  const std::byte* data = nullptr;
  uint64_t bytes = 0;
  uint64_t offset = 0;    // in the file
  float plus = 0;         // added to each value: some files hold scales of norms less 1. Of vectors alone
  uint64_t matrices = 1;  // of equal rows, one behind the other, where there are experts: rows counts those of all

  bool minus_exp = false;                          // each value x stands for -e^x. Of vectors alone
  std::shared_ptr<const MadeRows> made = nullptr;  // where it does not lie in the file as it is: then data is null

  /// Of experts, how many of the matrices a device that packs them keeps packed at once; 0: all, and it may be no
  /// expert's.
  uint64_t kept = 0;
  /// Told when bytes of the file are wanted. Null: nobody wants to know.
  std::function<void(const std::byte* data, uint64_t bytes, Need need)> told = nullptr;

  /// Rows are about to be read, or were and are not wanted for now.
  void advise(uint64_t first, uint64_t n, Need need) const {
    if (made != nullptr)
      made->advise(first, n, need);
    else if (told)
      told(data + bytes / rows * first, bytes / rows * n, need);
  }

  /// Whether there are bytes, and not the file's header alone.
  bool whole() const { return data != nullptr || (made != nullptr && made->whole()); }
  /// These rows: where they lie, or made in `room`, which holds as many.
  const std::byte* at(uint64_t first, uint64_t n, std::byte* room) const {
    if (made == nullptr) return data + bytes / rows * first;
    made->rows(first, n, room);
    return room;
  }

  /// Where it lies, as far as alignment up to the system's pages goes, and the same before and after it is mapped: a
  /// map begins at a page.
  uint64_t place() const { return data == nullptr ? offset : reinterpret_cast<uint64_t>(data); }
};

}  // namespace foundry
