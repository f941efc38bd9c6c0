// The checksum of saved histories against XXH64's published values.
#include "base/hash.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace foundry {

TEST_CASE("hash64 is XXH64") {
  const auto of = [](const std::string& text, uint64_t seed = 0) {
    return hash64(std::as_bytes(std::span(text.data(), text.size())), seed);
  };
  CHECK(of("") == 0xEF46DB3751D8E999);
  CHECK(of("a") == 0xD24EC4F1A98C6E5B);
  CHECK(of("abc") == 0x44BC2CF5AD770999);
  CHECK(of("Nobody inspects the spammish repetition") == 0xFBCEA83C8A378BF1);
  // The reference implementation's own check: bytes of a multiplicative generator, with two seeds.
  std::string bytes;
  for (uint64_t i = 0, g = 2654435761; i < 222; ++i, g *= 11400714785074694797ULL)
    bytes.push_back(static_cast<char>(g >> 56));
  CHECK(of(bytes.substr(0, 1)) == 0xE934A84ADB052768);
  CHECK(of(bytes.substr(0, 1), 2654435761) == 0x5014607643A9B4C3);
  CHECK(of(bytes.substr(0, 14)) == 0x8282DCC4994E35C8);
  CHECK(of(bytes.substr(0, 222)) == 0xB641AE8CB691C174);
  CHECK(of(bytes.substr(0, 222), 2654435761) == 0x20CB8AB7AE10C14A);
}

}  // namespace foundry
