#include "gguf/metadata.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

namespace foundry {
namespace {

constexpr const char* kMetaTypeNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                          "bool", "string", "array", "u64", "i64", "f64"};
constexpr uint32_t kMetaTypes = std::size(kMetaTypeNames);

/// Calls with a value of the C++ type that a plain number of the file becomes.
template <class F>
auto with_number_type(MetaType type, F&& call) {
  switch (type) {
    case MetaType::u8:
      return call(uint8_t{});
    case MetaType::i8:
      return call(int8_t{});
    case MetaType::u16:
      return call(uint16_t{});
    case MetaType::i16:
      return call(int16_t{});
    case MetaType::u32:
      return call(uint32_t{});
    case MetaType::i32:
      return call(int32_t{});
    case MetaType::u64:
      return call(uint64_t{});
    case MetaType::i64:
      return call(int64_t{});
    case MetaType::f32:
      return call(float{});
    default:
      return call(double{});
  }
}

MetaType read_type(Cursor& cursor, const char* what) {
  const uint64_t at = cursor.offset();
  const uint32_t number = cursor.read<uint32_t>(what);
  if (number >= kMetaTypes)
    cursor.fail(at, what, "a type from 0 to " + std::to_string(kMetaTypes - 1), std::to_string(number));
  return static_cast<MetaType>(number);
}

bool read_bool(Cursor& cursor) {
  const uint64_t at = cursor.offset();
  const uint8_t byte = cursor.read<uint8_t>("bool");
  if (byte > 1) cursor.fail(at, "bool", "0 or 1", std::to_string(byte));
  return byte == 1;
}

std::string_view read_text(Cursor& cursor) {
  return cursor.read_string("string", std::numeric_limits<uint64_t>::max());
}

/// The least bytes that an element takes: a false count ends where the file does.
uint64_t least_bytes(MetaType type) {
  if (type == MetaType::boolean) return 1;
  if (type == MetaType::string) return 8;
  if (type == MetaType::array) return 4 + 8;
  return with_number_type(type, [](auto zero) { return uint64_t{sizeof(zero)}; });
}

/// Steps over an array, `depth` deep in others, and checks it.
MetaArray read_array(Cursor& cursor, int depth) {
  if (depth > kMaxArrayDepth)
    cursor.fail(cursor.offset(), "array", "at most " + std::to_string(kMaxArrayDepth) + " arrays inside each other",
                "one more");
  const MetaType type = read_type(cursor, "array element type");
  const uint64_t least = least_bytes(type), count = cursor.read_count("array count", least);
  const uint64_t begin = cursor.offset();
  const std::byte* data = cursor.take(0, "array");
  if (type == MetaType::boolean) {
    for (uint64_t i = 0; i < count; ++i) read_bool(cursor);
  } else if (type == MetaType::string) {
    for (uint64_t i = 0; i < count; ++i) read_text(cursor);
  } else if (type == MetaType::array) {
    for (uint64_t i = 0; i < count; ++i) read_array(cursor, depth + 1);
  } else {
    cursor.take(count * least, "array");
  }
  return MetaArray(type, count, {data, static_cast<size_t>(cursor.offset() - begin)});
}

MetaValue read_value(Cursor& cursor, MetaType type) {
  switch (type) {
    case MetaType::boolean:
      return read_bool(cursor);
    case MetaType::string:
      return read_text(cursor);
    case MetaType::array:
      return read_array(cursor, 1);
    default:
      return with_number_type(type, [&](auto zero) -> MetaValue {
        using T = decltype(zero);
        return cursor.read<T>(meta_type_name(type));
      });
  }
}

template <class T>
constexpr MetaType type_of() {
  if constexpr (std::is_same_v<T, bool>)
    return MetaType::boolean;
  else if constexpr (std::is_same_v<T, std::string_view>)
    return MetaType::string;
  else if constexpr (std::is_same_v<T, float>)
    return MetaType::f32;
  else if constexpr (std::is_same_v<T, double>)
    return MetaType::f64;
  else if constexpr (std::is_signed_v<T>)
    return sizeof(T) == 1   ? MetaType::i8
           : sizeof(T) == 2 ? MetaType::i16
           : sizeof(T) == 4 ? MetaType::i32
                            : MetaType::i64;
  else
    return sizeof(T) == 1   ? MetaType::u8
           : sizeof(T) == 2 ? MetaType::u16
           : sizeof(T) == 4 ? MetaType::u32
                            : MetaType::u64;
}

}  // namespace

const char* meta_type_name(MetaType type) { return kMetaTypeNames[static_cast<uint32_t>(type)]; }

void MetaArray::each(const std::function<void(const MetaValue&)>& call) const {
  const std::string source = "an array of the metadata";
  Cursor cursor(bytes_, source);
  for (uint64_t i = 0; i < size_; ++i) call(read_value(cursor, type_));
}

bool MetaArray::operator==(const MetaArray& other) const {
  return type_ == other.type_ && size_ == other.size_ && std::ranges::equal(bytes_, other.bytes_);
}

std::map<std::string, MetaValue> read_metadata(Cursor& cursor, uint64_t n_keys,
                                               std::map<std::string, uint64_t>& offsets) {
  if (n_keys > kMaxKeys)
    cursor.fail(cursor.offset() - sizeof(n_keys), "number of keys", "at most " + std::to_string(kMaxKeys),
                std::to_string(n_keys));
  std::map<std::string, MetaValue> metadata;
  for (uint64_t i = 0; i < n_keys; ++i) {
    cursor.set_place("key " + std::to_string(i) + " of " + std::to_string(n_keys));
    const uint64_t at = cursor.offset();
    const std::string key(cursor.read_string("key", kMaxKeyBytes));
    if (key.empty()) cursor.fail(at, "key", "at least 1 byte", "an empty key");
    if (!is_utf8(key)) cursor.fail(at, "key", "UTF-8", quoted(key));
    cursor.set_place("key " + quoted(key));
    if (metadata.count(key) != 0) cursor.fail(at, "key", "each key once", "it twice");
    const MetaType type = read_type(cursor, "value type");
    offsets.emplace(key, cursor.offset());
    metadata.emplace(key, read_value(cursor, type));
  }
  cursor.set_place("");
  return metadata;
}

std::string meta_type_name(const MetaValue& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, MetaArray>)
          return std::string("array of ") + meta_type_name(v.type());
        else
          return meta_type_name(type_of<std::decay_t<decltype(v)>>());
      },
      value);
}

}  // namespace foundry
