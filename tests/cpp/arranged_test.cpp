// Weights that are made of a file's others: which values stand where, and what is refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "cpp/advised_files.h"
#include "cpp/gguf_files.h"
#include "files/arranged_files.h"
#include "files/joined_files.h"
#include "files/tensor_file.h"
#include "formats/block_formats.h"

using namespace foundry;
using namespace foundry::test;

namespace {

/// 24 values, 0, 1, 2 ..: "a" and "b" [2, 3] each, "both" [4, 3].
std::string numbers() {
  std::vector<float> values(24);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::shared_ptr<TensorFile> opened(const TempFile& disk, bool header_only = false) {
  auto file = std::make_shared<TensorFile>(disk.path(), header_only);
  file->add("a", DType::f32, 2, 3, 0), file->add("b", DType::f32, 2, 3, 24), file->add("both", DType::f32, 4, 3, 48);
  return file;
}

/// All rows of a view, a row or so many at a time.
std::vector<float> values(const WeightView& view, uint64_t at_once) {
  std::vector<float> found(view.rows * view.cols), room(at_once * view.cols);
  for (uint64_t first = 0; first < view.rows; first += at_once) {
    const uint64_t n = std::min(at_once, view.rows - first);
    std::memcpy(found.data() + first * view.cols, view.at(first, n, reinterpret_cast<std::byte*>(room.data())),
                n * view.cols * sizeof(float));
  }
  return found;
}

void check(const WeightView& view, uint64_t matrices, uint64_t rows, const std::vector<float>& expected) {
  CHECK((view.matrices == matrices && view.rows == matrices * rows && view.cols == expected.size() / view.rows));
  CHECK((view.bytes == expected.size() * sizeof(float) && view.whole()));
  for (const uint64_t at_once : {1, 3, 99}) CHECK(values(view, at_once) == expected);
}

}  // namespace

TEST_CASE("arranged: matrices are joined, split, turned and put in order") {
  const TempFile disk(numbers());
  ArrangedFiles files(opened(disk));
  files.add("joined", {{"b", "a"}});
  check(files.view("joined"), 2, 2, {6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5});
  files.add("firsts", {{"both"}, 2, false, {0}});
  check(files.view("firsts"), 2, 1, {12, 13, 14, 18, 19, 20});
  files.add("order", {{"both"}, 1, false, {3, 0}, {2, 1}});
  check(files.view("order"), 1, 2, {23, 22, 14, 13});
  files.add("turned", {{"both"}, 2, true, {0, 2}});
  check(files.view("turned"), 2, 2, {12, 15, 14, 17, 18, 21, 20, 23});
  files.add("same", {{"both"}, 2});
  CHECK(files.view("same").data == files.view("both").data);  // in place
  check(files.view("same"), 2, 2, {12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23});
  files.view("joined").made->advise(1, 2, Need::not_now), files.view("turned").made->advise(0, 4, Need::not_now);
  check(files.view("joined"), 2, 2, {6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5});
  CHECK(files.names() == std::vector<std::string_view>{"firsts", "joined", "order", "same", "turned"});
  CHECK((files.has("a") && files.has("turned") && !files.has("c") && files.path() == disk.path()));
  CHECK(files.fingerprint() == opened(disk)->fingerprint());
}

TEST_CASE("arranged: an expert's rows are made of its own bytes, and only those are told of") {
  const TempFile disk(numbers());
  const auto file = opened(disk);
  const auto advised = std::make_shared<Advised>(file);
  ArrangedFiles files(advised);
  const std::byte *both = file->view("both").data, *a = file->view("a").data, *b = file->view("b").data;
  files.add("turned", {{"both"}, 2, true, {0, 2}});
  files.add("order", {{"both"}, 2, false, {1, 0}});
  files.add("joined", {{"b", "a"}});
  for (const Need need : {Need::now, Need::not_now}) {
    const auto told = [&](const char* name, uint64_t first, uint64_t n) {
      advised->told.clear();
      files.view(name).advise(first, n, need);
      return advised->told;
    };
    using Ranges = decltype(advised->told);
    CHECK(told("turned", 0, 2) == Ranges{{both, 24, need}});
    CHECK(told("turned", 2, 2) == Ranges{{both + 24, 24, need}});
    CHECK(told("order", 3, 1) == Ranges{{both + 24, 24, need}});
    CHECK(told("order", 0, 4) == Ranges{{both, 24, need}, {both + 24, 24, need}});
    CHECK(told("joined", 0, 2) == Ranges{{b, 24, need}});
    CHECK(told("joined", 2, 2) == Ranges{{a, 24, need}});
  }
}

TEST_CASE("arranged: of a header alone there is a shape and nothing else") {
  const TempFile disk(numbers());
  ArrangedFiles files(opened(disk, true));
  files.add("joined", {{"a", "b"}}), files.add("same", {{"both"}, 2});
  for (const char* name : {"joined", "same"}) {
    const WeightView view = files.view(name);
    CHECK((!view.whole() && view.rows == 4 && view.matrices == 2 && view.bytes == 48));
  }
}

TEST_CASE("arranged: what does not fit together is refused by name") {
  const TempFile disk(numbers());
  ArrangedFiles files(opened(disk));
  CHECK_THROWS_WITH_AS(files.add("x", {{"a", "both"}}),
                       doctest::Contains("\"both\" as f32 [2, 3], like \"a\", found f32 [4, 3]"), ModelFormatError);
  CHECK_THROWS_WITH_AS(files.add("x", {{"both"}, 3}), doctest::Contains("rows of 3 matrices"), ModelFormatError);
  CHECK_THROWS_WITH_AS(files.add("x", {{"a", "c"}}), doctest::Contains("\"c\": expected in the file"),
                       ModelFormatError);
  CHECK_THROWS_WITH_AS(files.add("a", {{"b"}}), doctest::Contains("expected it once, found it twice"),
                       ModelFormatError);
  CHECK_THROWS_WITH_AS(files.add("x", {{"both"}, 2, false, {2}}), doctest::Contains("numbers below 2, found 2"),
                       ValueError);
  CHECK_THROWS_WITH_AS(files.add("x", {{"both"}, 1, true, {}, {4}}), doctest::Contains("numbers below 4, found 4"),
                       ValueError);
  CHECK_THROWS_AS(files.add("x", {}), ValueError);
  CHECK(!files.has("x"));
}

TEST_CASE("arranged: MXFP4 is put together of nibbles and scales") {
  constexpr uint64_t kExperts = 2, kRows = 4, kBlocks = 3;
  constexpr uint64_t kAll = kExperts * kRows * kBlocks;
  std::string bytes(kAll * 17, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 37 + i / 11);
  for (size_t i = 0; i < kAll; ++i) bytes[kAll * 16 + i] = static_cast<char>(120 + i % 9);  // scales
  const TempFile disk(bytes);
  auto file = std::make_shared<TensorFile>(disk.path());
  file->add_bytes("nibbles", kAll * 16, 0), file->add_bytes("scales", kAll, kAll * 16);
  CHECK_THROWS_AS(file->add_bytes("more", 8, kAll * 16 + 8), ModelFormatError);
  CHECK((!file->has("nibbles") && file->names().empty() && !file->bytes_of("more")));
  ArrangedFiles files(std::make_shared<JoinedFiles>(std::vector<std::shared_ptr<const WeightSource>>{file}));
  files.add_mxfp4("odd", "nibbles", "scales", kExperts, kRows, 32 * kBlocks, {1, 3});
  const WeightView view = files.view("odd");
  CHECK((view.type == DType::mxfp4 && view.matrices == 2 && view.rows == 4 && view.cols == 96));
  std::vector<std::byte> room(view.bytes);
  std::vector<float> found(view.rows * view.cols), expected;
  dequantise_row(view.type, view.at(0, view.rows, room.data()), found.data(), found.size());
  const float of_code[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};  // E2M1
  for (const uint64_t row : {1, 3, 5, 7})
    for (uint64_t i = 0; i < 96; ++i) {
      const uint64_t block = row * kBlocks + i / 32;
      const auto byte = static_cast<uint8_t>(bytes[block * 16 + i % 32 / 2]);
      const auto scale = static_cast<uint8_t>(bytes[kAll * 16 + block]);
      expected.push_back(of_code[i % 2 == 0 ? byte & 15 : byte >> 4] * std::ldexp(1.0f, scale - 127));
    }
  CHECK(found == expected);
  view.made->advise(1, 3, Need::now), view.made->advise(1, 3, Need::not_now);
  CHECK_THROWS_WITH_AS(files.add_mxfp4("x", "nibbles", "scales", 2, 5, 96, {}),
                       doctest::Contains("480 bytes of \"nibbles\", found 384"), ModelFormatError);
  CHECK_THROWS_WITH_AS(files.add_mxfp4("x", "nibbles", "none", 2, 4, 96, {}),
                       doctest::Contains("24 bytes of \"none\", found none"), ModelFormatError);
  CHECK_THROWS_AS(files.add_mxfp4("x", "nibbles", "scales", 2, 4, 80, {}), ModelFormatError);
  CHECK_THROWS_AS(files.add_mxfp4("x", "nibbles", "scales", UINT64_MAX, 4, 96, {}), ModelFormatError);
  CHECK_THROWS_AS(files.add_mxfp4("x", "nibbles", "scales", 2, 4, 96, {4}), ValueError);
}
