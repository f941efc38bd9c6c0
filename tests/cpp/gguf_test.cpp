// The GGUF reader on files built here, byte by byte: what it must read, and everything that it must refuse.
#include "gguf/gguf.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/block_formats.h"
#include "gguf/tensor_types.h"

using namespace foundry;

namespace {

/// Numbers of value types and of tensor types, as in the specification: written out, so that a slip in the reader shows.
enum : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };
enum : uint32_t {
  kTypeF32 = 0,
  kTypeF16 = 1,
  kTypeQ4_0 = 2,
  kTypeQ4_1 = 3,
  kTypeQ8_0 = 8,
  kTypeIQ1_S = 19,
  kTypeBF16 = 30
};

class Bytes {
 public:
  template <class T>
  Bytes& put(T value) {
    const auto* raw = reinterpret_cast<const char*>(&value);
    data_.insert(data_.end(), raw, raw + sizeof(T));
    return *this;
  }
  Bytes& string(const std::string& text) {
    put<uint64_t>(text.size());
    data_ += text;
    return *this;
  }
  Bytes& append(const std::string& raw) {
    data_ += raw;
    return *this;
  }
  Bytes& pad(size_t multiple) {
    data_.resize((data_.size() + multiple - 1) / multiple * multiple, '\0');
    return *this;
  }
  const std::string& str() const { return data_; }

 private:
  std::string data_;
};

struct TensorSpec {
  std::string name;
  std::vector<uint64_t> shape;
  uint32_t type;
  uint64_t offset;
};

/// A file of given parts; every part can be made wrong.
struct FileSpec {
  uint32_t version = 3;
  std::vector<std::string> pairs;  // key, type and value, encoded
  std::vector<TensorSpec> tensors;
  std::string data;
  uint32_t alignment = 32;

  std::string encode() const {
    Bytes out;
    out.append("GGUF").put<uint32_t>(version).put<uint64_t>(tensors.size()).put<uint64_t>(pairs.size());
    for (const std::string& pair : pairs) out.append(pair);
    for (const TensorSpec& tensor : tensors) {
      out.string(tensor.name).put<uint32_t>(static_cast<uint32_t>(tensor.shape.size()));
      for (const uint64_t n : tensor.shape) out.put<uint64_t>(n);
      out.put<uint32_t>(tensor.type).put<uint64_t>(tensor.offset);
    }
    return out.pad(alignment).append(data).str();
  }
};

std::string pair_of(const std::string& key, uint32_t type, const std::string& value) {
  return Bytes().string(key).put<uint32_t>(type).append(value).str();
}
template <class T>
std::string raw(T value) {
  return Bytes().put<T>(value).str();
}

/// Parses an exact copy on the heap, so that a read past its end is seen by the address sanitizer.
class Parsed {
 public:
  explicit Parsed(const std::string& text) : size_(text.size()), copy_(new std::byte[text.size()]) {
    std::memcpy(copy_.get(), text.data(), size_);
    file_ = GgufFile::parse({copy_.get(), size_}, "test.gguf");
  }
  GgufFile* operator->() const { return file_.get(); }
  const std::byte* data() const { return copy_.get(); }
  std::byte* data() { return copy_.get(); }

 private:
  size_t size_;
  std::unique_ptr<std::byte[]> copy_;
  std::shared_ptr<GgufFile> file_;
};

/// The message with which a file is refused; empty if it is not.
std::string refusal(const std::string& text) {
  try {
    const Parsed parsed(text);
    return "";
  } catch (const ModelFormatError& error) {
    return error.what();
  }
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
#define CHECK_REFUSED(text, part)                  \
  do {                                             \
    const std::string message_ = refusal(text);    \
    INFO("message: " << message_);                 \
    CHECK(contains(message_, "test.gguf: byte ")); \
    CHECK(contains(message_, part));               \
  } while (false)

std::string array_of_arrays(int depth) {
  Bytes out;
  for (int i = 1; i < depth; ++i) out.put<uint32_t>(kArray).put<uint64_t>(1);
  return out.put<uint32_t>(kU8).put<uint64_t>(2).append("\x01\x02").str();
}

/// Small, but with something of everything.
FileSpec small_file() {
  FileSpec file;
  file.pairs = {
      pair_of("general.name", kString, Bytes().string("tiny").str()), pair_of("flag", kBool, raw<uint8_t>(1)),
      pair_of("tokens", kArray, Bytes().put<uint32_t>(kString).put<uint64_t>(2).string("a").string("bc").str()),
      pair_of("nested", kArray, array_of_arrays(2)),
      pair_of("scores", kArray, Bytes().put<uint32_t>(kF32).put<uint64_t>(2).put(0.5f).put(-2.0f).str())};
  file.tensors = {{"norm", {4}, kTypeF32, 0}, {"table", {32, 2}, kTypeQ8_0, 32}};
  Bytes data;
  data.put(1.0f).put(2.0f).put(3.0f).put(4.0f).pad(32);
  for (int row = 0; row < 2; ++row) {
    data.put<uint16_t>(0x3c00);
    for (int i = 0; i < 32; ++i) data.put<int8_t>(static_cast<int8_t>(row == 0 ? i : -i));
  }
  file.data = data.str();
  return file;
}

template <class T>
std::vector<T> elements(const MetaValue& value) {
  std::vector<T> result;
  std::get<MetaArray>(value).each([&](const MetaValue& element) { result.push_back(std::get<T>(element)); });
  return result;
}

class TempFile {
 public:
  explicit TempFile(const std::string& contents) {
    std::string pattern = (std::filesystem::temp_directory_path() / "foundry-gguf-XXXXXX").string();
    const int fd = mkstemp(pattern.data());
    REQUIRE(fd >= 0);
    ::close(fd);
    path_ = pattern;
    std::ofstream out(path_, std::ios::binary);
    out << contents;
  }
  ~TempFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

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

TEST_CASE("gguf: files on disk") {
  const std::string text = small_file().encode();
  const TempFile disk(text);
  const auto file = GgufFile::open(disk.path());
  CHECK(file->path() == disk.path());
  const WeightView table = file->view("table");
  const std::string before(reinterpret_cast<const char*>(table.data), table.bytes);
  file->forget(table.data, table.bytes);
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
