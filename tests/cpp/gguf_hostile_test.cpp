// The GGUF reader on files that are damaged or made to harm: refused at a named byte, or harmless.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpp/gguf_files.h"
#include "formats/block_formats.h"
#include "gguf/gguf.h"
#include "gguf/tensor_types.h"

namespace foundry {

using namespace test;

TEST_CASE("gguf: more keys than any file has are refused, whatever its size") {
  std::string text = small_file().encode() + std::string(1 << 20, '\0');
  const uint64_t count = 65537;
  std::memcpy(text.data() + 16, &count, sizeof(count));
  CHECK_REFUSED(text, "byte 16: number of keys: expected at most 65536, found 65537");
}

TEST_CASE("gguf: arrays are checked again when they are read, for the file may have been written to") {
  const std::string text = small_file().encode();
  const size_t length = text.find("bc") - sizeof(uint64_t);
  Parsed parsed(text);
  const MetaValue tokens = parsed->metadata().at("tokens");
  CHECK(elements<std::string_view>(tokens).size() == 2);
  for (const uint64_t wrong : {uint64_t{3}, uint64_t{1} << 40, UINT64_MAX}) {
    std::memcpy(parsed.data() + length, &wrong, sizeof(wrong));
    CHECK_THROWS_AS(elements<std::string_view>(tokens), ModelFormatError);
  }
}

TEST_CASE("gguf: a file that ends at any byte is refused") {
  const std::string text = small_file().encode();
  REQUIRE(refusal(text).empty());
  for (size_t n = 0; n < text.size(); ++n) {
    INFO("cut to " << n << " bytes");
    CHECK(contains(refusal(text.substr(0, n)), "test.gguf: byte "));
  }
}

TEST_CASE("gguf: a damaged byte is refused or harmless, wherever it is") {
  const std::string text = small_file().encode();
  size_t refused = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string damaged = text;
      damaged[i] = static_cast<char>(value);
      try {
        const Parsed parsed(damaged);
        for (const GgufTensor& tensor : parsed->tensors()) {
          if (!tensor.supported) continue;
          const WeightView view = parsed->view(tensor.name);
          REQUIRE(view.data >= parsed.data());
          REQUIRE(view.data + view.bytes <= parsed.data() + damaged.size());
          std::vector<float> all(tensor.n_elements);
          dequantise_row(view.type, view.data, all.data(), tensor.n_elements);
        }
      } catch (const ModelFormatError&) {
        ++refused;
      }
    }
  }
  CHECK(refused > text.size());
}

TEST_CASE("gguf: several damaged bytes at once") {
  const std::string text = small_file().encode();
  std::mt19937 random(20240607);
  const uint64_t extremes[] = {
      0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff};
  size_t refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = text;
    for (int n = static_cast<int>(random() % 4); n >= 0; --n) {
      const size_t at = random() % damaged.size();
      const uint64_t value = random() % 2 == 0 ? extremes[random() % 8] : random();
      std::memcpy(&damaged[at], &value, std::min<size_t>(damaged.size() - at, 1u << (random() % 4)));
    }
    if (!refusal(damaged).empty()) ++refused;
  }
  CHECK(refused > 1000);
}

TEST_CASE("gguf: hostile headers") {
  const FileSpec good = small_file();
  const auto edited = [&](size_t at, auto value) {
    std::string text = good.encode();
    std::memcpy(&text[at], &value, sizeof(value));
    return text;
  };
  CHECK_REFUSED("", "magic: expected 4 bytes, found the end of the file after 0");
  CHECK_REFUSED("GGML" + good.encode().substr(4), "byte 0: magic: expected \"GGUF\", found \"GGML\"");
  CHECK_REFUSED(edited(4, uint32_t{1}), "byte 4: version: expected 2 or 3, found 1");
  CHECK_REFUSED(edited(4, uint32_t{4}), "found 4");
  CHECK_REFUSED(edited(4, uint32_t{0x03000000}), "big-endian");
  CHECK_REFUSED(edited(8, uint64_t{UINT64_MAX}), "byte 8: number of tensors: expected at most");
  CHECK_REFUSED(edited(16, uint64_t{1} << 40), "byte 16: number of keys: expected at most");
}

TEST_CASE("gguf: hostile metadata") {
  const auto with = [](const std::string& pair) {
    FileSpec file;
    file.pairs = {pair};
    return file.encode() + std::string(64, '\0');
  };
  const uint64_t huge = uint64_t{1} << 61;
  CHECK_REFUSED(with(pair_of("", kU8, "\1")), "byte 24: key 0 of 1: key: expected at least 1 byte");
  CHECK_REFUSED(with(pair_of("a\xff\x1b", kU8, "\1")), "key: expected UTF-8, found \"a\\xff\\x1b\"");
  for (const char* bad :
       {"\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3", "\xe2\x82"})
    CHECK_REFUSED(with(pair_of(bad, kU8, "\1")), "expected UTF-8");
  CHECK(refusal(with(pair_of("\xed\x9f\xbf\xf4\x8f\xbf\xbf\xe0\xa0\x80\xc2\x80", kU8, "\1"))).empty());
  CHECK_REFUSED(with(pair_of(std::string(65536, 'k'), kU8, "\1")),
                "key length: expected at most 65535 bytes, found 65536");
  CHECK_REFUSED(with(Bytes().put<uint64_t>(huge).str()), "key length");
  CHECK_REFUSED(with(pair_of("k", 13, "\1")), "key \"k\": value type: expected a type from 0 to 12, found 13");
  CHECK_REFUSED(with(pair_of("k", kBool, "\2")), "key \"k\": bool: expected 0 or 1, found 2");
  CHECK_REFUSED(with(pair_of("k", kString, raw<uint64_t>(huge))), "key \"k\": string length: expected at most");
  CHECK_REFUSED(with(pair_of("k", kString, raw<uint64_t>(UINT64_MAX))), "found 18446744073709551615");
  CHECK_REFUSED(with(pair_of("k", kArray, raw<uint32_t>(99))),
                "array element type: expected a type from 0 to 12, found 99");
  for (const uint32_t type : {kU8, kF64, kBool, kString, kArray})
    CHECK_REFUSED(with(pair_of("k", kArray, Bytes().put<uint32_t>(type).put<uint64_t>(huge).str())),
                  "key \"k\": array count: expected at most");
  CHECK_REFUSED(with(pair_of("k", kArray, array_of_arrays(5))), "at most 4 arrays inside each other");
  CHECK_REFUSED(with(pair_of("k", kArray, array_of_arrays(100000))), "at most 4 arrays inside each other");
  FileSpec twice;
  twice.pairs = {pair_of("k", kU8, "\1"), pair_of("k", kU8, "\2")};
  CHECK_REFUSED(twice.encode(), "key \"k\": key: expected each key once, found it twice");
}

TEST_CASE("gguf: hostile tensors") {
  const auto with = [](const TensorSpec& tensor) {
    FileSpec file;
    file.tensors = {tensor};
    file.data = std::string(128, '\0');
    return file.encode();
  };
  const uint64_t big = uint64_t{1} << 32;
  REQUIRE(refusal(with({"t", {32}, kTypeF32, 0})).empty());
  CHECK_REFUSED(with({"t", {33}, kTypeF32, 0}),
                "tensor \"t\": offset: expected 132 bytes inside the data section of 128");
  CHECK_REFUSED(with({"t", {32}, kTypeF32, 32}), "found offset 32");
  CHECK_REFUSED(with({"t", {1}, kTypeF32, 8}), "offset: expected a multiple of the alignment 32, found 8");
  CHECK_REFUSED(with({"t", {1}, kTypeF32, UINT64_MAX - 31}), "found offset 18446744073709551584");
  CHECK_REFUSED(with({"t", {32}, kTypeF32, UINT64_MAX - 31}),
                "found offset 18446744073709551584");  // the end wraps to 96
  CHECK_REFUSED(with({"t", {}, kTypeF32, 0}), "number of dimensions: expected 1 to 4, found 0");
  CHECK_REFUSED(with({"t", {1, 1, 1, 1, 1}, kTypeF32, 0}), "number of dimensions: expected 1 to 4, found 5");
  CHECK_REFUSED(with({"t", {4, 0}, kTypeF32, 0}), "tensor \"t\": dimension 1: expected 1 or more, found 0");
  CHECK_REFUSED(with({"t", {big, big}, kTypeF32, 0}), "dimensions: expected a tensor of less than 2^64");
  CHECK_REFUSED(with({"t", {1, big, big, big}, kTypeF32, 0}), "dimensions: expected a tensor of less than 2^64");
  CHECK_REFUSED(with({"t", {big, big / 4}, kTypeF32, 0}), "dimensions: expected a tensor of less than 2^64");
  CHECK_REFUSED(with({"t", {UINT64_MAX}, kTypeF16, 0}), "dimensions: expected a tensor of less than 2^64");
  for (const uint32_t type : {kTypeQ4_0, kTypeQ4_1, kTypeQ8_0})
    CHECK_REFUSED(with({"t", {33}, type, 0}), "first dimension: expected a multiple of 32");
  CHECK_REFUSED(with({"t", {32}, 5, 0}),
                "type: expected a known type (supported: " + supported_tensor_types() + "), found number 5");
  CHECK_REFUSED(with({"", {32}, kTypeF32, 0}), "tensor 0 of 1: name: expected at least 1 byte");
  CHECK_REFUSED(with({"\x80", {32}, kTypeF32, 0}), "name: expected UTF-8");
  CHECK_REFUSED(with({std::string(65, 't'), {32}, kTypeF32, 0}), "name length: expected at most 64 bytes, found 65");
  FileSpec twice;
  twice.tensors = {{"t", {1}, kTypeF32, 0}, {"t", {1}, kTypeF32, 0}};
  twice.data = std::string(4, '\0');
  CHECK_REFUSED(twice.encode(), "tensor \"t\": name: expected each name once, found it twice");
}

TEST_CASE("gguf: tensors do not share bytes") {
  FileSpec spec;
  spec.tensors = {{"a", {16}, kTypeF32, 0}, {"b", {8}, kTypeF32, 64}, {"c", {8}, kTypeF32, 128}};
  spec.data = std::string(160, '\0');
  REQUIRE(refusal(spec.encode()).empty());  // a gap is nobody's
  spec.tensors[2].offset = 96;
  REQUIRE(refusal(spec.encode()).empty());  // end to end
  std::swap(spec.tensors[0].offset, spec.tensors[2].offset);
  REQUIRE(refusal(spec.encode()).empty());  // in any order
  spec.tensors[0].offset = 32, spec.tensors[1].offset = 64;
  CHECK_REFUSED(spec.encode(), "tensor \"b\": offset: expected bytes behind those of tensor \"a\", which end at byte ");
  spec.tensors[1].offset = 32;  // the same bytes
  CHECK_REFUSED(spec.encode(), "which end at byte ");
  spec.tensors[0].offset = 64, spec.tensors[1].offset = 128, spec.tensors[2].offset = 64;
  CHECK_REFUSED(spec.encode(), "which end at byte ");
}

}  // namespace foundry
