// The table of formats: what is asked of it, and what it refuses.
#include <doctest/doctest.h>

#include "base/error.h"
#include "formats/table.h"
#include "gguf/tensor_types.h"
#include "kv/kv.h"

using namespace foundry;

TEST_CASE("formats: found by name and by type, and files' types agree with them") {
  REQUIRE(find_format("q8_0") != nullptr);
  CHECK(find_format("q8_0")->type == DType::q8_0);
  CHECK(find_format("Q8_0") == nullptr);
  CHECK_THROWS_AS(format_of(static_cast<DType>(5)), ConsistencyError);
  for (const Format& format : formats()) {
    CHECK(find_format(format.name) == &format);
    CHECK(&format_of(format.type) == &format);
    const TensorType* of_file = find_tensor_type(static_cast<uint32_t>(format.type));
    REQUIRE(of_file != nullptr);
    CHECK((of_file->supported && of_file->name == std::string(format.file_name)));
    CHECK((of_file->block_elements == format.block_elements && of_file->block_bytes == format.block_bytes));
  }
  uint32_t supported = 0;
  for (const TensorType& one : tensor_types()) {
    CHECK_MESSAGE(find_tensor_type(one.number) == &one, one.name, ": a number that two types have");
    supported += one.supported ? 1 : 0;
  }
  CHECK(supported == formats().size());
}

TEST_CASE("formats: one that only the host reads is refused on a GPU") {
  const Format half{DType::q4_1, "half", "HALF", 32, 20, Readers::host, Readers::all, Readers::none};
  check_readable(half, &Format::linear, false, "a");
  check_readable(half, &Format::table, true, "a");
  CHECK_THROWS_WITH_AS(
      check_readable(half, &Format::linear, true, "tensor \"a\""),
      ("tensor \"a\": expected " + format_names(&Format::linear, true) + " on a GPU, found half").c_str(),
      ModelFormatError);
  CHECK_THROWS_WITH_AS(check_readable(half, &Format::kv, false, "K"),
                       "K: expected f32, f16, bf16, q8_0 or q4_0, found half", ModelFormatError);
}

TEST_CASE("formats: pages hold only formats that keep K and V") {
  KvGeometry geometry;
  geometry.n_layers = geometry.n_kv_heads = 1, geometry.head_dim = 32;
  geometry.check();
  geometry.v_type = DType::q4_1;
  CHECK_THROWS_WITH_AS(geometry.check(), "K and V: expected f32, f16, bf16, q8_0 or q4_0, found q4_1", ValueError);
}
