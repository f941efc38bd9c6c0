// Reads a file front to back. Nothing is taken before it is known to be there, and every failure says where and what.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace foundry {

static_assert(std::endian::native == std::endian::little, "GGUF files are read as they lie: little endian");

bool is_utf8(std::string_view text);
/// In quotes, cut at 80 bytes, with control characters and bytes that are not UTF-8 written \xNN: safe to show.
std::string quoted(std::string_view text);

class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& source) : bytes_(bytes), source_(source) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }
  /// What is being read ("key \"general.name\""), for messages; may be empty.
  void set_place(std::string place) { place_ = std::move(place); }

  /// ModelFormatError: "<source>: byte <at>: <place>: <what>: expected <expected>, found <found>".
  [[noreturn]] void fail(uint64_t at, const std::string& what, const std::string& expected,
                         const std::string& found) const;

  template <class T>
  T read(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }
  /// Length and bytes; at most max_bytes of them.
  std::string_view read_string(const char* what, uint64_t max_bytes);
  /// A count of things of which each takes at least min_bytes: checked against what remains.
  uint64_t read_count(const char* what, uint64_t min_bytes);
  /// Bytes that are known to be there once this returns.
  const std::byte* take(uint64_t bytes, const char* what);

 private:
  std::span<const std::byte> bytes_;
  const std::string& source_;
  std::string place_;
  uint64_t offset_ = 0;
};

}  // namespace foundry
