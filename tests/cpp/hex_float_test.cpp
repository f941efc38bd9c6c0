// Floats as text: what C's %a writes in the C locale, and back to the same bits.
#include "base/hex_float.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace foundry {
namespace {

/// The test's own process never sets a locale, so that this is C's.
std::string by_c(float value) {
  char text[40];
  std::snprintf(text, sizeof text, "%a", static_cast<double>(value));
  return text;
}

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

}  // namespace

TEST_CASE("hex_float: what %a writes, and back") {
  CHECK(hex_float(3) == "0x1.8p+1");
  CHECK(hex_float(-0.0f) == "-0x0p+0");
  using Limits = std::numeric_limits<float>;
  std::mt19937 random(3);
  std::vector<float> values = {0.0f,
                               -0.0f,
                               1.0f,
                               0.1f,
                               1e-6f,
                               10000.0f,
                               Limits::min(),
                               Limits::max(),
                               Limits::lowest(),
                               Limits::denorm_min(),
                               -3e-42f,
                               0x1.fffffep-127f,
                               Limits::infinity(),
                               -Limits::infinity()};
  for (int i = 0; i < 20000; ++i) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  for (const float value : values) {
    const std::string text = hex_float(value);
    if (!std::isnan(value)) REQUIRE(text == by_c(value));
    const std::optional<float> back = parse_hex_float(text);
    REQUIRE(back.has_value());
    REQUIRE(same(*back, value));
  }
}

TEST_CASE("hex_float: nothing else is read") {
  for (const char* text : {"",
                           "-",
                           "1",
                           "0.5",
                           "0x",
                           "0x1",
                           "0x1p",
                           "0x1p+",
                           "0x1.8",
                           "0x2p+1",
                           "0x1,8p+1",
                           "0x1.8p1",
                           "0x1.8p+1x",
                           "0x1.8P+1",
                           "0X1p+0",
                           " 0x1p+0",
                           "0x1.0000001p+0",
                           "0x1p+128",
                           "0x1p-150",
                           "0x1p+99999999999",
                           "infinity",
                           "nan(1)",
                           "0x1.fffffffp+0"})
    CHECK_MESSAGE(!parse_hex_float(text).has_value(), text);
}

}  // namespace foundry
