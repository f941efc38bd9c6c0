#include "gguf/metadata.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

namespace foundry {
namespace {

/// GGUF's numbers of value types.
enum class MetaType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
constexpr uint32_t kMetaTypes = 13;
constexpr const char* kMetaTypeNames[kMetaTypes] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                    "bool", "string", "array", "u64", "i64", "f64"};

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

std::string read_text(Cursor& cursor) {
  return std::string(cursor.read_string("string", std::numeric_limits<uint64_t>::max()));
}

/// Elements that are large in memory beside their smallest form in the file are taken one by one: a false count ends where the
/// file does, and never decides on an allocation.
template <class T, class Read>
std::vector<T> read_each(uint64_t count, Read&& read) {
  std::vector<T> values;
  values.reserve(static_cast<size_t>(std::min<uint64_t>(count, 4096)));
  for (uint64_t i = 0; i < count; ++i) values.push_back(read());
  return values;
}

MetaValue read_array(Cursor& cursor, int depth) {
  if (depth > kMaxArrayDepth)
    cursor.fail(cursor.offset(), "array", "at most " + std::to_string(kMaxArrayDepth) + " arrays inside each other",
                "one more");
  const MetaType type = read_type(cursor, "array element type");
  switch (type) {
    case MetaType::boolean: {
      const uint64_t count = cursor.read_count("array count", 1);
      return read_each<bool>(count, [&] { return read_bool(cursor); });
    }
    case MetaType::string: {
      const uint64_t count = cursor.read_count("array count", 8);
      return read_each<std::string>(count, [&] { return read_text(cursor); });
    }
    case MetaType::array: {
      const uint64_t count = cursor.read_count("array count", 4 + 8);
      return read_each<MetaArray>(count, [&] { return MetaArray{read_array(cursor, depth + 1)}; });
    }
    default:
      return with_number_type(type, [&](auto zero) -> MetaValue {
        using T = decltype(zero);
        const uint64_t count = cursor.read_count("array count", sizeof(T));
        std::vector<T> values(static_cast<size_t>(count));
        const std::byte* data = cursor.take(count * sizeof(T), "array");
        if (count != 0) std::memcpy(values.data(), data, values.size() * sizeof(T));
        return values;
      });
  }
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
        return cursor.read<T>(kMetaTypeNames[static_cast<uint32_t>(type)]);
      });
  }
}

template <class T>
constexpr const char* name_of() {
  if constexpr (std::is_same_v<T, bool>)
    return "bool";
  else if constexpr (std::is_same_v<T, std::string>)
    return "string";
  else if constexpr (std::is_same_v<T, MetaArray>)
    return "array";
  else if constexpr (std::is_same_v<T, float>)
    return "f32";
  else if constexpr (std::is_same_v<T, double>)
    return "f64";
  else if constexpr (std::is_signed_v<T>)
    return sizeof(T) == 1 ? "i8" : sizeof(T) == 2 ? "i16" : sizeof(T) == 4 ? "i32" : "i64";
  else
    return sizeof(T) == 1 ? "u8" : sizeof(T) == 2 ? "u16" : sizeof(T) == 4 ? "u32" : "u64";
}

template <class T>
struct NameOf {
  static std::string get() { return name_of<T>(); }
};
template <class T>
struct NameOf<std::vector<T>> {
  static std::string get() { return std::string("array of ") + name_of<T>(); }
};

}  // namespace

std::map<std::string, MetaValue> read_metadata(Cursor& cursor, uint64_t n_keys,
                                               std::map<std::string, uint64_t>& offsets) {
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
  return std::visit([](const auto& v) { return NameOf<std::decay_t<decltype(v)>>::get(); }, value);
}

}  // namespace foundry
