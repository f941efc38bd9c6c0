// kv_append with the ropes of Q and K before it, on devices that fuse them: the same bits as the ops one after another.
#include <doctest/doctest.h>

#include "kernels/support.h"
#include "kv/kv.h"

namespace foundry::kernel_tests {
namespace {

struct Inputs {
  std::vector<cases::SequenceCase> sequences;
  uint32_t heads, kv_heads, page_tokens, rows = 0;
  KvGeometry geometry;
  RopeParams q_rope{}, k_rope{};
  std::vector<float> q, k, v;
  std::vector<int32_t> positions;
  std::shared_ptr<WeightData> factors;
};

Inputs inputs_of(const cases::Case& one, Device& device) {
  Random random(one.seed());
  Inputs in{one.sequences(),
            one.number("heads"),
            one.number("kv_heads"),
            one.number("page_tokens"),
            0,
            {},
            {},
            {},
            {},
            {},
            {},
            {},
            {}};
  for (const cases::SequenceCase& s : in.sequences) {
    in.rows += s.rows;
    for (uint32_t r = 0; r < s.rows; ++r) in.positions.push_back(static_cast<int32_t>(s.start + r));
  }
  KvGeometry& g = in.geometry;
  g.n_layers = 3, g.n_kv_heads = in.kv_heads, g.head_dim = one.number("head_dim"), g.page_tokens = in.page_tokens;
  g.tile_tokens = std::min(in.page_tokens, device.info().max_tile_tokens);
  g.k_type = one.type("k_type"), g.v_type = one.type("v_type");
  g.check();
  RopeParams& p = in.k_rope;
  p.n_rows = in.rows, p.n_heads = in.kv_heads, p.head_dim = g.head_dim, p.rot_dim = one.number("rot_dim", g.head_dim);
  p.style = one.number("style"), p.base = 10000, p.scale = 1, p.magnitude = one.number("factors", 0) == 0 ? 1 : 1.2f;
  in.q_rope = p, in.q_rope.n_heads = in.heads;
  if (one.number("heated", 0) != 0) in.q_rope.temperature = 0.1f, in.q_rope.temperature_length = 16;
  in.q = random_floats(random, uint64_t{in.rows} * in.heads * g.head_dim);
  in.k = random_floats(random, uint64_t{in.rows} * in.kv_heads * g.head_dim);
  in.v = random_floats(random, uint64_t{in.rows} * in.kv_heads * g.head_dim);
  if (one.number("factors", 0) != 0) {
    std::vector<float> values = random_floats(random, p.rot_dim / 2);
    for (float& value : values) value = 4.5f + 3.5f * value;
    in.factors = std::make_shared<WeightData>(weight_from(values, 1, p.rot_dim / 2));
  }
  return in;
}

struct Result {
  std::vector<float> q;
  std::vector<std::vector<std::byte>> pages;
};

Result run(TestDevice& device, const Inputs& in, bool in_one, const std::string& who) {
  std::vector<SequenceParams> sequences;
  std::vector<Guarded> pages, addresses;
  uint32_t row = 0;
  for (const cases::SequenceCase& s : in.sequences) {
    std::vector<uint64_t> places;
    for (uint64_t i = 0; i < in.geometry.pages_for(s.start + s.rows); ++i) {
      pages.emplace_back(*device, in.geometry.page_bytes());
      places.push_back(pages.back().address());
    }
    addresses.emplace_back(*device, places);
    SequenceParams p{};
    p.pages = addresses.back().address(), p.n_pages = static_cast<uint32_t>(places.size());
    p.max_seq_len = p.n_pages * in.page_tokens, p.first_row = row, p.n_rows = s.rows, p.start = s.start;
    sequences.push_back(p);
    row += s.rows;
  }
  const Guarded q(*device, in.q), k(*device, in.k), v(*device, in.v), positions(*device, in.positions);
  const Guarded q_out(*device, in.q.size() * sizeof(float)), k_out(*device, in.k.size() * sizeof(float));
  const auto factors = in.factors == nullptr ? nullptr : prepare(*device, *in.factors, WeightUse::table);
  const RopeArgs of_q{in.q_rope, factors.get(), positions.span(), q.span(), q_out.span()};
  const RopeArgs of_k{in.k_rope, factors.get(), positions.span(), k.span(), k_out.span()};
  const auto n = static_cast<uint32_t>(sequences.size());
  KvAppendArgs append{in.geometry.params(), 1, in.rows, n, sequences.data(), k_out.span(), v.span()};
  if (in_one) append.q_rope = &of_q, append.k_rope = &of_k;
  const StepShape shape{in.rows, in.heads * in.geometry.head_dim, n, in.heads, in.kv_heads, in.geometry.head_dim};
  device.step(shape, who, [&] {
    if (!in_one) device->rope(of_q), device->rope(of_k);
    device->kv_append(append);
  });
  CHECK_MESSAGE(k_out.guards_intact(), who, ": a byte outside the room was written");
  Result result{q_out.result(who), {}};
  for (const Guarded& page : pages) {
    CHECK_MESSAGE(page.guards_intact(), who, ": a byte outside a page was written");
    result.pages.push_back(page.read<std::byte>());
  }
  return result;
}

}  // namespace

TEST_CASE("ropes before kv_append give the bits of the ops one after another") {
  for (const std::string& name : other_devices()) {
    TestDevice device(name, 2);
    if (!device->info().fuses) continue;
    for (const cases::Case& one : cases_of("rope_append", *device)) {
      const std::string who = name + ", " + one.text;
      const Inputs in = inputs_of(one, *device);
      const Result expected = run(device, in, false, who), found = run(device, in, true, who);
      CHECK_MESSAGE(compare_bits(found.q, expected.q) == "", who);
      CHECK_MESSAGE(found.pages == expected.pages, who, ": pages differ");
    }
  }
}

}  // namespace foundry::kernel_tests
