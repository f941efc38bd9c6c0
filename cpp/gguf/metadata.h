// The metadata section of a GGUF file.
#pragma once
#include <map>
#include <string>

#include "gguf/cursor.h"
#include "gguf/gguf.h"

namespace foundry {

/// Arrays inside arrays, counted from the outermost: no known file passes 2, and a hostile one must not exhaust the
/// stack.
inline constexpr int kMaxArrayDepth = 4;
inline constexpr uint64_t kMaxKeyBytes = 65535;  // the specification's limit
/// Known files have less than a hundred; each takes memory beside the file.
inline constexpr uint64_t kMaxKeys = 65536;
/// The smallest entry: a key of one byte, the type, a value of one byte.
inline constexpr uint64_t kMinKeyValueBytes = 8 + 1 + 4 + 1;

/// Reads n_keys pairs, of which each value is checked and none copied; `offsets` gets the byte at which each value
/// lies, for messages that come later.
std::map<std::string, MetaValue> read_metadata(Cursor& cursor, uint64_t n_keys,
                                               std::map<std::string, uint64_t>& offsets);
/// "u32", "string", "array of f32": for messages.
std::string meta_type_name(const MetaValue& value);

}  // namespace foundry
