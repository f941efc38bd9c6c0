#include "base/hex_float.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

namespace foundry {
namespace {

constexpr uint32_t kDigits = 6;  // the 23 bits behind the point, and a zero

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

std::string hex_float(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  std::string text = bits >> 31 ? "-" : "";
  if (std::isnan(value)) return text + "nan";
  if (std::isinf(value)) return text + "inf";
  if (value == 0) return text + "0x0p+0";
  uint32_t fraction = bits & 0x7fffff;
  int exponent = static_cast<int>(bits >> 23 & 0xff) - 127;
  if (exponent == -127) {  // subnormal: its first bit is moved to where a normal number's is
    const int shift = std::countl_zero(fraction) - 8;
    fraction = fraction << shift & 0x7fffff;
    exponent = -126 - shift;
  }
  text += "0x1";
  if (fraction != 0) text += '.';
  for (uint32_t rest = fraction << 1; rest != 0; rest = rest << 4 & 0xffffff)
    text += "0123456789abcdef"[rest >> (4 * (kDigits - 1))];
  return text + (exponent < 0 ? "p-" : "p+") + std::to_string(std::abs(exponent));
}

std::optional<float> parse_hex_float(const std::string& text) {
  size_t at = text.starts_with('-') ? 1 : 0;
  const float sign = at == 1 ? -1.0f : 1.0f;
  if (text.compare(at, std::string::npos, "nan") == 0)
    return std::copysign(std::numeric_limits<float>::quiet_NaN(), sign);
  if (text.compare(at, std::string::npos, "inf") == 0) return sign * std::numeric_limits<float>::infinity();
  const std::string head = text.substr(at, 3);
  if (head != "0x0" && head != "0x1") return std::nullopt;
  at += 3;
  uint32_t mantissa = head == "0x1" ? 1 : 0, digits = 0;
  if (mantissa == 1 && at < text.size() && text[at] == '.')
    for (++at; at < text.size() && digit_of(text[at]) >= 0; ++at, ++digits) {
      if (digits == kDigits) return std::nullopt;
      mantissa = mantissa << 4 | static_cast<uint32_t>(digit_of(text[at]));
    }
  if (at + 2 >= text.size() || text[at] != 'p' || (text[at + 1] != '+' && text[at + 1] != '-')) return std::nullopt;
  const bool negative = text[at + 1] == '-';
  int exponent = 0;
  for (at += 2; at < text.size(); ++at) {
    if (text[at] < '0' || text[at] > '9' || exponent > 999) return std::nullopt;
    exponent = 10 * exponent + (text[at] - '0');
  }
  const double value = std::ldexp(mantissa, (negative ? -exponent : exponent) - static_cast<int>(4 * digits));
  const auto result = static_cast<float>(value);
  if (static_cast<double>(result) != value) return std::nullopt;  // more bits, or a larger exponent, than a float has
  return sign * result;
}

}  // namespace foundry
