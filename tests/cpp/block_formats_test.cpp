// Block formats against values computed by hand, and the 16-bit floats against every value they have.
#include "formats/block_formats.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/half.h"

using namespace foundry;

namespace {

template <class T>
std::string raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

std::vector<float> dequantised(DType type, const std::string& block, size_t n) {
  std::vector<float> out(n);
  dequantise_row(type, reinterpret_cast<const std::byte*>(block.data()), out.data(), n);
  return out;
}

}  // namespace

TEST_CASE("block formats: values computed by hand") {
  // Scale 0.5 (0x3800), minimum -1 (0xbc00). nibbles[i] holds i below and 15 - i above.
  std::string q4_0 = raw<uint16_t>(0x3800);
  std::string q4_1 = raw<uint16_t>(0x3800) + raw<uint16_t>(0xbc00);
  std::string q8_0 = raw<uint16_t>(0x3800);
  for (int i = 0; i < 16; ++i) {
    q4_0 += static_cast<char>(i | (15 - i) << 4);
    q4_1 += static_cast<char>(i | (15 - i) << 4);
  }
  for (int i = 0; i < 32; ++i) q8_0 += static_cast<char>(i == 31 ? -128 : 4 * i - 3);
  const auto a = dequantised(DType::q4_0, q4_0 + q4_0, 64);
  const auto b = dequantised(DType::q4_1, q4_1 + q4_1, 64);
  const auto c = dequantised(DType::q8_0, q8_0 + q8_0, 64);
  for (int i = 0; i < 64; ++i) {
    const int j = i % 32;
    const float q = static_cast<float>(j < 16 ? j : 31 - j);
    CHECK(a[i] == (q - 8.0f) / 2.0f);
    CHECK(b[i] == q / 2.0f - 1.0f);
    CHECK(c[i] == (j == 31 ? -64.0f : static_cast<float>(4 * j - 3) / 2.0f));
  }
  CHECK(dequantised(DType::f32, raw(0.1f), 1)[0] == 0.1f);
  CHECK(dequantised(DType::f16, raw<uint16_t>(0x4248) + raw<uint16_t>(0x8001), 2) ==
        std::vector<float>{3.140625f, -0x1p-24f});
  CHECK(dequantised(DType::bf16, raw<uint16_t>(0x4049), 1)[0] == 3.140625f);
  CHECK(row_bytes(DType::q4_1, 576) == 360);
  CHECK_THROWS_AS(row_bytes(DType::q4_0, 48), ValueError);
  float none = 0;
  CHECK_THROWS_AS(dequantise_row(DType::q8_0, reinterpret_cast<const std::byte*>(""), &none, 1), ValueError);
}

TEST_CASE("half: every f16 and bf16 comes back, NaN as quiet NaN") {
  for (uint32_t h = 0; h < 65536; ++h) {
    const auto bits = static_cast<uint16_t>(h);
    const bool nan16 = (h & 0x7fff) > 0x7c00, nan_bf = (h & 0x7fff) > 0x7f80;
    if (f32_to_f16(f16_to_f32(bits)) != (nan16 ? h | 0x200 : h)) FAIL("f16 " << h);
    if (f32_to_bf16(bf16_to_f32(bits)) != (nan_bf ? h | 0x40 : h)) FAIL("bf16 " << h);
  }
  CHECK(f16_to_f32(0x3c00) == 1.0f);
  CHECK(f16_to_f32(0x7bff) == 65504.0f);
  CHECK(f16_to_f32(0x0001) == 0x1p-24f);
  CHECK(f16_to_f32(0x0400) == 0x1p-14f);
  CHECK(f16_to_f32(0xfc00) == -std::numeric_limits<float>::infinity());
  CHECK(bf16_to_f32(0xc000) == -2.0f);
}

TEST_CASE("half: narrowing goes to the nearest value, ties to the even one") {
  // Between neighbours a < b of one sign: below, at and above their midpoint. In double, midpoints are exact.
  const auto check = [](uint16_t lower, double a, double b, auto narrow) {
    const float middle = static_cast<float>((a + b) / 2);
    REQUIRE(static_cast<double>(middle) == (a + b) / 2);
    const auto upper = static_cast<uint16_t>(lower + 1);
    const uint16_t even = lower % 2 == 0 ? lower : upper;
    for (const float sign : {1.0f, -1.0f}) {
      const uint16_t bit = sign < 0 ? 0x8000 : 0;
      if (narrow(sign * middle) != (even | bit)) FAIL("tie above " << lower);
      if (narrow(sign * std::nextafter(middle, 0.0f)) != (lower | bit)) FAIL("below the tie above " << lower);
      if (narrow(sign * std::nextafter(middle, INFINITY)) != (upper | bit)) FAIL("past the tie above " << lower);
    }
  };
  // Past the largest value the next step of the same width stands for infinity.
  for (uint16_t h = 0; h < 0x7c00; ++h)
    check(h, f16_to_f32(h), h == 0x7bff ? 65536.0 : f16_to_f32(static_cast<uint16_t>(h + 1)), f32_to_f16);
  for (uint16_t h = 0; h < 0x7f7f; ++h)
    check(h, bf16_to_f32(h), bf16_to_f32(static_cast<uint16_t>(h + 1)), f32_to_bf16);
  CHECK(f32_to_f16(1e30f) == 0x7c00);
  CHECK(f32_to_f16(-INFINITY) == 0xfc00);
  CHECK(f32_to_f16(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(f32_to_f16(-0.0f) == 0x8000);
  CHECK(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(f32_to_bf16(INFINITY) == 0x7f80);
  CHECK((f32_to_f16(std::bit_cast<float>(0x7f800001u)) & 0x7e00) == 0x7e00);
  CHECK(f32_to_bf16(std::bit_cast<float>(0x7f800001u)) == 0x7fc0);
}
