// What tells a file from every other one: a hash of all its bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/input_file.h"

namespace foundry {

/// Made once for each state of a file. ModelFormatError where it was written to since it was opened; IoError.
uint64_t fingerprint_of(const InputFile& file);
uint64_t fingerprint_of(std::span<const std::byte> bytes);

}  // namespace foundry
