// Files whose tables somebody else reads, and several files that are one model.
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>

#include "base/error.h"
#include "cpp/gguf_files.h"
#include "files/joined_files.h"
#include "files/tensor_file.h"

using namespace foundry;
using namespace foundry::test;

namespace {

std::string floats(std::initializer_list<float> values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.begin(), bytes.size());
  return bytes;
}

float first_of(const WeightView& view) {
  float value;
  std::memcpy(&value, view.data, sizeof value);
  return value;
}

}  // namespace

TEST_CASE("files: a table that is read elsewhere gives the bytes where they lie") {
  const TempFile disk(floats({1, 2, 3, 4, 5, 6}));
  TensorFile file(disk.path());
  file.add("a", DType::f32, 2, 2, 0);
  file.add("b", DType::f32, 1, 2, 16, 1.0f);
  CHECK((file.has("a") && !file.has("c") && file.names() == std::vector<std::string_view>{"a", "b"}));
  const WeightView a = file.view("a"), b = file.view("b");
  CHECK((a.rows == 2 && a.cols == 2 && a.bytes == 16 && first_of(a) == 1.0f));
  CHECK((b.offset == 16 && b.plus == 1.0f && first_of(b) == 5.0f));
  for (const Need need : {Need::now, Need::not_now}) file.advise(a.data, a.bytes, need);
  CHECK(first_of(file.view("a")) == 1.0f);
  CHECK_THROWS_WITH_AS(file.view("c"), doctest::Contains("found 2 tensors of other names"), ModelFormatError);

  TensorFile header(disk.path(), true);
  header.add("a", DType::f32, 2, 2, 0);
  CHECK((header.view("a").data == nullptr && header.view("a").bytes == 16 && header.read(20, 99) == floats({6})));
}

TEST_CASE("files: no tensor reaches past the file, or into another") {
  const TempFile disk(std::string(40, '\0'));
  TensorFile file(disk.path());
  file.add("a", DType::f32, 1, 4, 8);
  const auto refused = [&](uint64_t rows, uint64_t cols, uint64_t offset) {
    CHECK_THROWS_AS(file.add("b", DType::f32, rows, cols, offset), ModelFormatError);
    CHECK(!file.has("b"));
  };
  refused(1, 1, 40);
  refused(1, 3, 0);
  refused(1, 1, 20);
  refused(1, 1, 2);
  refused(uint64_t{1} << 62, uint64_t{1} << 62, 0);
  refused(1, 1, UINT64_MAX - 3);
  refused(0, 1, 0);
  CHECK_THROWS_AS(file.add("a", DType::f32, 1, 1, 32), ModelFormatError);
  file.add("b", DType::f32, 1, 2, 0);
  file.add("c", DType::f32, 2, 2, 24);
}

TEST_CASE("files: several files are one model, whose fingerprint each byte changes") {
  const TempFile one(floats({1})), other(floats({2})), third(floats({3}));
  const auto opened = [](const TempFile& disk, const char* name) {
    auto file = std::make_shared<TensorFile>(disk.path());
    file->add(name, DType::f32, 1, 1, 0);
    return file;
  };
  const JoinedFiles joined({opened(one, "a"), opened(other, "b")});
  CHECK((joined.path() == one.path() && joined.names() == std::vector<std::string_view>{"a", "b"}));
  CHECK((first_of(joined.view("a")) == 1.0f && first_of(joined.view("b")) == 2.0f));
  for (const Need need : {Need::now, Need::not_now}) joined.advise(joined.view("b").data, 4, need);
  CHECK(first_of(joined.view("b")) == 2.0f);
  CHECK_THROWS_WITH_AS(joined.view("c"), doctest::Contains("expected in one of 2 files"), ModelFormatError);
  CHECK_THROWS_WITH_AS(JoinedFiles({opened(one, "a"), opened(other, "a")}),
                       doctest::Contains("tensor \"a\": expected each name once, found it in"), ModelFormatError);
  CHECK_THROWS_AS(JoinedFiles({}), ValueError);
  const uint64_t same = JoinedFiles({opened(one, "x"), opened(other, "y")}).fingerprint();
  CHECK(joined.fingerprint() == same);
  CHECK(joined.fingerprint() != JoinedFiles({opened(one, "a"), opened(third, "b")}).fingerprint());
  CHECK(joined.fingerprint() != JoinedFiles({opened(other, "b"), opened(one, "a")}).fingerprint());
}
