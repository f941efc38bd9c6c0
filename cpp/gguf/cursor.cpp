#include "gguf/cursor.h"

#include "base/error.h"

namespace foundry {
namespace {

/// Bytes of the UTF-8 character that begins here, or 0: overlong forms, surrogates and values past U+10FFFF are none.
/// Source: Unicode 15, table 3-7.
size_t character_bytes(std::string_view text) {
  const auto at = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](size_t i, unsigned low, unsigned high) { return at(i) >= low && at(i) <= high; };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1, 0x80, 0xbf) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const unsigned low = first == 0xe0 ? 0xa0 : 0x80, high = first == 0xed ? 0x9f : 0xbf;
    return continues(1, low, high) && continues(2, 0x80, 0xbf) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const unsigned low = first == 0xf0 ? 0x90 : 0x80, high = first == 0xf4 ? 0x8f : 0xbf;
    return continues(1, low, high) && continues(2, 0x80, 0xbf) && continues(3, 0x80, 0xbf) ? 4 : 0;
  }
  return 0;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = character_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string quoted(std::string_view text) {
  constexpr size_t kShown = 80;
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out = "\"";
  size_t shown = 0;
  while (!text.empty() && shown < kShown) {
    const size_t bytes = character_bytes(text);
    const unsigned char first = static_cast<unsigned char>(text[0]);
    // C0, delete, and C1 (which is C2 80 .. C2 9F in UTF-8) steer terminals.
    const bool control =
        first < 0x20 || first == 0x7f || (bytes == 2 && first == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0);
    if (bytes == 0 || control) {
      out += "\\x";
      out += kDigits[first >> 4];
      out += kDigits[first & 15];
      // The second byte of a C1 character, now alone, is written so as well.
      text.remove_prefix(1);
      shown += 1;
    } else {
      out += text.substr(0, bytes);
      text.remove_prefix(bytes);
      shown += bytes;
    }
  }
  if (!text.empty()) out += "...";
  return out + "\"";
}

void Cursor::fail(uint64_t at, const std::string& what, const std::string& expected, const std::string& found) const {
  throw ModelFormatError(source_ + ": byte " + std::to_string(at) + ": " + (place_.empty() ? "" : place_ + ": ") +
                         what + ": expected " + expected + ", found " + found);
}

const std::byte* Cursor::take(uint64_t bytes, const char* what) {
  if (bytes > remaining())
    fail(offset_, what, std::to_string(bytes) + " bytes", "the end of the file after " + std::to_string(remaining()));
  const std::byte* data = bytes_.data() + offset_;
  offset_ += bytes;
  return data;
}

uint64_t Cursor::read_count(const char* what, uint64_t min_bytes) {
  const uint64_t at = offset_;
  const uint64_t count = read<uint64_t>(what);
  const uint64_t most = remaining() / min_bytes;
  if (count > most)
    fail(at, what,
         "at most " + std::to_string(most) + " (" + std::to_string(remaining()) + " bytes remain, " +
             std::to_string(min_bytes) + " or more for each)",
         std::to_string(count));
  return count;
}

std::string_view Cursor::read_string(const char* what, uint64_t max_bytes) {
  const uint64_t at = offset_;
  const uint64_t length = read<uint64_t>(what);
  if (length > max_bytes)
    fail(at, std::string(what) + " length", "at most " + std::to_string(max_bytes) + " bytes", std::to_string(length));
  if (length > remaining())
    fail(at, std::string(what) + " length", "at most " + std::to_string(remaining()) + " bytes, which remain",
         std::to_string(length));
  return {reinterpret_cast<const char*>(take(length, what)), static_cast<size_t>(length)};
}

}  // namespace foundry
