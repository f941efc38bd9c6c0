// The formats as values, in the order of formats.def: for messages, bindings and checks.
#pragma once
#include <span>
#include <string>

#include "formats/dtype.h"

namespace foundry {

/// Which devices can: none, those of the host (reference and cpu), or all.
enum class Readers : uint32_t { none, host, all };

struct Format {
  DType type;
  const char* name;       // "q4_0"
  const char* file_name;  // "Q4_0", as GGUF writes it
  uint32_t block_elements;
  uint32_t block_bytes;
  Readers linear;  // read it as the weight of a linear layer
  Readers table;   // as an embedding table
  Readers kv;      // keep K and V in it
};

std::span<const Format> formats();
const Format& format_of(DType type);
/// Null when it is no format's name.
const Format* find_format(const std::string& name);

/// Whether a device can: one of the host, or a GPU.
inline bool reads(Readers readers, bool gpu) { return readers == Readers::all || (readers == Readers::host && !gpu); }

/// ModelFormatError, which begins with `what`, unless a device of the kind can use the format so.
void check_readable(const Format& format, Readers Format::* use, bool gpu, const std::string& what);

/// "f32, f16 or q8_0": the names of those that a device of the kind can use so, for messages.
std::string format_names(Readers Format::* use, bool gpu = false);

}  // namespace foundry
