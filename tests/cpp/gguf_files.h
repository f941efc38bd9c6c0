// GGUF files for tests, built byte by byte: every part can be made wrong.
#pragma once
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "gguf/gguf.h"

namespace foundry::test {

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

inline std::string pair_of(const std::string& key, uint32_t type, const std::string& value) {
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
inline std::string refusal(const std::string& text) {
  try {
    const Parsed parsed(text);
    return "";
  } catch (const ModelFormatError& error) {
    return error.what();
  }
}
inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
#define CHECK_REFUSED(text, part)                  \
  do {                                             \
    const std::string message_ = refusal(text);    \
    INFO("message: " << message_);                 \
    CHECK(contains(message_, "test.gguf: byte ")); \
    CHECK(contains(message_, part));               \
  } while (false)

inline std::string array_of_arrays(int depth) {
  Bytes out;
  for (int i = 1; i < depth; ++i) out.put<uint32_t>(kArray).put<uint64_t>(1);
  return out.put<uint32_t>(kU8).put<uint64_t>(2).append("\x01\x02").str();
}

/// Small, but with something of everything.
inline FileSpec small_file() {
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

}  // namespace foundry::test
