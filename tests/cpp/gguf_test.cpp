// The GGUF reader on files built here: what it must read, and that it reads it right.
#include "gguf/gguf.h"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "cpp/gguf_files.h"
#include "formats/block_formats.h"

namespace foundry {
namespace {

using namespace test;

}  // namespace

TEST_CASE("gguf: every type of metadata comes back as it was written") {
  FileSpec file;
  file.pairs = {pair_of("u8", kU8, raw<uint8_t>(255)),
                pair_of("i8", kI8, raw<int8_t>(-128)),
                pair_of("u16", kU16, raw<uint16_t>(65535)),
                pair_of("i16", kI16, raw<int16_t>(-32768)),
                pair_of("u32", kU32, raw<uint32_t>(4294967295u)),
                pair_of("i32", kI32, raw<int32_t>(-7)),
                pair_of("u64", kU64, raw<uint64_t>(UINT64_MAX)),
                pair_of("i64", kI64, raw<int64_t>(INT64_MIN)),
                pair_of("f32", kF32, raw(1.5f)),
                pair_of("f64", kF64, raw(-2.25)),
                pair_of("yes", kBool, raw<uint8_t>(1)),
                pair_of("no", kBool, raw<uint8_t>(0)),
                pair_of("text", kString, Bytes().string("h\xc3\xa9llo").str()),
                pair_of("empty", kString, Bytes().string("").str())};
  const Parsed parsed(file.encode());
  const auto& meta = parsed->metadata();
  CHECK(meta.size() == 14);
  CHECK(meta.at("u8") == MetaValue(uint8_t{255}));
  CHECK(meta.at("i8") == MetaValue(int8_t{-128}));
  CHECK(meta.at("u16") == MetaValue(uint16_t{65535}));
  CHECK(meta.at("i16") == MetaValue(int16_t{-32768}));
  CHECK(meta.at("u32") == MetaValue(uint32_t{4294967295u}));
  CHECK(meta.at("i32") == MetaValue(int32_t{-7}));
  CHECK(meta.at("u64") == MetaValue(uint64_t{UINT64_MAX}));
  CHECK(meta.at("i64") == MetaValue(int64_t{INT64_MIN}));
  CHECK(meta.at("f32") == MetaValue(1.5f));
  CHECK(meta.at("f64") == MetaValue(-2.25));
  CHECK(meta.at("yes") == MetaValue(true));
  CHECK(meta.at("no") == MetaValue(false));
  CHECK(meta.at("text") == MetaValue(std::string_view("h\xc3\xa9llo")));
  CHECK(meta.at("empty") == MetaValue(std::string_view()));
  CHECK(parsed->tensors().empty());
}

TEST_CASE_TEMPLATE("gguf: arrays of numbers", T, uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t,
                   int64_t, float, double) {
  const uint32_t type = std::is_same_v<T, float>    ? kF32
                        : std::is_same_v<T, double> ? kF64
                        : std::is_signed_v<T>       ? (sizeof(T) == 1   ? kI8
                                                       : sizeof(T) == 2 ? kI16
                                                       : sizeof(T) == 4 ? kI32
                                                                        : kI64)
                                                    : (sizeof(T) == 1   ? kU8
                                                       : sizeof(T) == 2 ? kU16
                                                       : sizeof(T) == 4 ? kU32
                                                                        : kU64);
  FileSpec file;
  file.pairs = {pair_of("values", kArray,
                        Bytes()
                            .put<uint32_t>(type)
                            .put<uint64_t>(3)
                            .put(T(1))
                            .put(std::numeric_limits<T>::lowest())
                            .put(std::numeric_limits<T>::max())
                            .str()),
                pair_of("none", kArray, Bytes().put<uint32_t>(type).put<uint64_t>(0).str())};
  const Parsed parsed(file.encode());
  CHECK(elements<T>(parsed->metadata().at("values")) ==
        std::vector<T>{T(1), std::numeric_limits<T>::lowest(), std::numeric_limits<T>::max()});
  CHECK(elements<T>(parsed->metadata().at("none")).empty());
}

TEST_CASE("gguf: arrays of strings, of bools and of arrays") {
  FileSpec file = small_file();
  file.pairs.push_back(
      pair_of("bools", kArray, Bytes().put<uint32_t>(kBool).put<uint64_t>(3).append(std::string("\1\0\1", 3)).str()));
  file.pairs.push_back(pair_of("deep", kArray, array_of_arrays(4)));
  const Parsed parsed(file.encode());
  const auto& meta = parsed->metadata();
  CHECK(elements<std::string_view>(meta.at("tokens")) == std::vector<std::string_view>{"a", "bc"});
  CHECK(elements<bool>(meta.at("bools")) == std::vector<bool>{true, false, true});
  MetaValue value = meta.at("deep");
  for (int i = 1; i < 4; ++i) {
    const std::vector<MetaArray> inner = elements<MetaArray>(value);
    REQUIRE(inner.size() == 1);
    value = inner[0];
  }
  CHECK(elements<uint8_t>(value) == std::vector<uint8_t>{1, 2});
}

TEST_CASE("gguf: tensors lie where the file says") {
  for (const uint32_t version : {2u, 3u}) {
    FileSpec file = small_file();
    file.version = version;
    const std::string text = file.encode();
    const Parsed parsed(text);
    CHECK(parsed->version() == version);
    CHECK(parsed->alignment() == 32);
    CHECK(parsed->file_bytes() == text.size());
    REQUIRE(parsed->tensors().size() == 2);
    CHECK(parsed->tensors()[0].name == "norm");
    CHECK(parsed->tensors()[1].shape == std::vector<uint64_t>{32, 2});
    CHECK(parsed->find("norm") == &parsed->tensors()[0]);
    CHECK(parsed->find("absent") == nullptr);

    const WeightView norm = parsed->view("norm");
    CHECK((norm.rows == 1 && norm.cols == 4 && norm.bytes == 16 && norm.type == DType::f32));
    const WeightView table = parsed->view("table");
    CHECK((table.rows == 2 && table.cols == 32 && table.bytes == 68 && table.type == DType::q8_0 &&
           table.name == "table"));
    CHECK(table.data + table.bytes == parsed.data() + text.size());
    std::vector<float> row(32);
    dequantise_row(table.type, table.data + 34, row.data(), 32);
    CHECK((row[0] == 0.0f && row[31] == -31.0f));
  }
}

TEST_CASE("gguf: three and four dimensions are counted into rows") {
  FileSpec file;
  file.tensors = {{"a", {4, 3, 2}, kTypeF32, 0}, {"b", {2, 3, 2, 2}, kTypeF32, 96}, {"c", {4}, kTypeBF16, 192}};
  file.data = std::string(200, '\0');
  const Parsed parsed(file.encode());
  CHECK((parsed->view("a").rows == 6 && parsed->view("a").cols == 4));
  CHECK((parsed->view("b").rows == 12 && parsed->view("b").cols == 2));
  CHECK(parsed->view("c").data == parsed->view("a").data + 192);
}

TEST_CASE("gguf: types that cannot be computed with are listed, and named when asked for") {
  FileSpec file;
  file.tensors = {{"wide", {256}, kTypeIQ1_S, 0}};
  file.data = std::string(50, '\0');
  const Parsed parsed(file.encode());
  CHECK(std::string(parsed->tensors()[0].type_name) == "IQ1_S");
  CHECK(parsed->tensors()[0].bytes == 50);
  CHECK_FALSE(parsed->tensors()[0].supported);
  CHECK_THROWS_WITH_AS(parsed->view("wide"), doctest::Contains("expected one of F32, F16, BF16, Q8_0, Q6_K, Q5_K, "),
                       ModelFormatError);
  CHECK_THROWS_WITH_AS(parsed->view("wode"), doctest::Contains("\"wode\""), ModelFormatError);
}

TEST_CASE("gguf: the alignment is the file's own") {
  FileSpec file;
  file.alignment = 64;
  file.pairs = {pair_of("general.alignment", kU32, raw<uint32_t>(64))};
  file.tensors = {{"a", {2}, kTypeF32, 0}, {"b", {2}, kTypeF32, 64}};
  file.data = std::string(72, '\0');
  const Parsed parsed(file.encode());
  CHECK(parsed->alignment() == 64);
  CHECK((parsed->tensors()[0].offset % 64 == 0 && parsed->tensors()[1].offset == parsed->tensors()[0].offset + 64));
  file.tensors[1].offset = 32;
  CHECK_REFUSED(file.encode(), "tensor \"b\": offset: expected a multiple of the alignment 64, found 32");
  for (const uint32_t wrong : {0u, 1u, 4u, 24u, 0xffffffffu}) {
    file.pairs = {pair_of("general.alignment", kU32, raw<uint32_t>(wrong))};
    CHECK_REFUSED(file.encode(),
                  "general.alignment: expected a power of two, 8 or more, found " + std::to_string(wrong));
  }
  file.pairs = {pair_of("general.alignment", kU64, raw<uint64_t>(64))};
  CHECK_REFUSED(file.encode(), "general.alignment: expected u32, found u64");
  file.pairs = {pair_of("general.alignment", kU32, raw<uint32_t>(1u << 31))};
  CHECK_REFUSED(file.encode(), "inside the data section of 0");
}

TEST_CASE("gguf: files on disk") {
  const std::string text = small_file().encode();
  const TempFile disk(text);
  const auto file = GgufFile::open(disk.path());
  CHECK(file->path() == disk.path());
  const WeightView table = file->view("table");
  const std::string before(reinterpret_cast<const char*>(table.data), table.bytes);
  file->advise(table.data, table.bytes, Need::not_now);
  CHECK(std::string(reinterpret_cast<const char*>(table.data), table.bytes) == before);

  CHECK_THROWS_WITH_AS(GgufFile::open(disk.path() + ".absent"), doctest::Contains("cannot be opened"), IoError);
  CHECK_THROWS_WITH_AS(GgufFile::open(std::filesystem::temp_directory_path().string()),
                       doctest::Contains("expected a regular file"), ModelFormatError);
  const TempFile empty("");
  CHECK_THROWS_WITH_AS(GgufFile::open(empty.path()), doctest::Contains("found an empty one"), ModelFormatError);
}

TEST_CASE("gguf: a mapped file moves, and takes any advice") {
  const TempFile disk(std::string(10000, 'x') + "y");
  MappedFile first(disk.path());
  const std::byte* data = first.data();
  MappedFile second(std::move(first));
  CHECK((second.data() == data && second.size() == 10001));
  const TempFile other("z");
  MappedFile third(other.path());
  third = std::move(second);
  CHECK((third.data() == data && third.size() == 10001));
  for (const uint64_t offset : {uint64_t{0}, uint64_t{5000}, uint64_t{10001}, UINT64_MAX}) {
    for (const uint64_t bytes : {uint64_t{0}, uint64_t{9000}, UINT64_MAX}) {
      third.advise_needed(offset, bytes);
      third.advise_sequential(offset, bytes);
      third.advise_unneeded(offset, bytes);
    }
  }
  CHECK((third.data()[0] == std::byte{'x'} && third.data()[10000] == std::byte{'y'}));
}

}  // namespace foundry
