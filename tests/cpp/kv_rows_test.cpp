// Quantised rows of K and V: near what was written, readable as GGUF's blocks, and nobody else's bytes.
#include "formats/kv_rows.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "formats/block_formats.h"
#include "formats/half.h"
#include "kv/kv.h"

namespace foundry {
namespace {

constexpr uint32_t kDim = 96, kTokens = 32;

KvGeometry geometry(DType type, uint32_t tile) {
  KvGeometry g;
  g.n_layers = g.n_kv_heads = 1;
  g.head_dim = kDim, g.page_tokens = kTokens, g.tile_tokens = tile;
  g.k_type = g.v_type = type;
  g.check();
  return g;
}

std::vector<float> row(std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> x(kDim);
  for (uint32_t d = 0; d < kDim; ++d) x[d] = normal(random) * (d < 32 ? 1e-3f : d < 64 ? 1.0f : 300.0f);
  return x;
}

/// Half a step, and for Q4_0 a whole one where x lies opposite the largest (its q would be 16); a step is off by its own rounding.
float bound(DType type, const float* block) {
  float most = 0;
  for (uint32_t i = 0; i < 32; ++i) most = std::max(most, std::fabs(block[i]));
  return type == DType::q8_0 ? most / 127 * 0.57f : most / 8 * 1.01f;
}

}  // namespace

TEST_CASE("kv rows: what is read is near what was written, and no other token's") {
  for (const DType type : {DType::q8_0, DType::q4_0})
    for (const uint32_t tile : {8u, 16u}) {
      const KvGeometry g = geometry(type, tile);
      const KvParams kv = g.params();
      std::mt19937 random(5);
      std::vector<std::byte> k(g.k_part_bytes(), std::byte{0xff}), v(g.v_part_bytes(), std::byte{0xff});
      std::vector<std::vector<float>> rows(kTokens);
      std::vector<uint32_t> order(kTokens);
      for (uint32_t t = 0; t < kTokens; ++t) order[t] = t;
      std::shuffle(order.begin(), order.end(), random);
      for (const uint32_t t : order) {
        rows[t] = row(random);
        write_k(kv, k.data(), t, rows[t].data());
        write_v(kv, v.data(), t, rows[t].data());
      }
      double squares = 0, steps = 0;
      for (uint32_t t = 0; t < kTokens; ++t) {
        std::vector<float> as_gguf(kDim);
        dequantise_row(type, v.data() + t * kDim / 32 * block_bytes(type), as_gguf.data(), kDim);
        for (uint32_t d = 0; d < kDim; ++d) {
          const float limit = bound(type, &rows[t][d / 32 * 32]);
          const float found = read_v(kv, v.data(), t, d);
          REQUIRE(found == as_gguf[d]);
          REQUIRE(read_k(kv, k.data(), t, d) == found);
          REQUIRE(std::fabs(found - rows[t][d]) <= limit);
          squares += std::pow((found - rows[t][d]) / limit, 2), ++steps;
        }
      }
      CHECK(std::sqrt(squares / steps) < 0.55);  // not at the bound all the time
    }
}

TEST_CASE("kv rows: zeros, values at the ends, and what is not finite") {
  float x[32] = {};
  int8_t q8[32];
  uint8_t q4[32];
  CHECK(quantise_q8_0(x, q8) == 0);
  CHECK((quantise_q4_0(x, q4) & 0x7fff) == 0);
  for (int i = 0; i < 32; ++i) CHECK((q8[i] == 0 && q4[i] == 8));

  x[3] = -127, x[4] = 127, x[5] = 0.5f, x[6] = 1.5f, x[7] = 126.5f;
  CHECK(f16_to_f32(quantise_q8_0(x, q8)) == 1.0f);
  CHECK((q8[3] == -127 && q8[4] == 127 && q8[5] == 0 && q8[6] == 2 && q8[7] == 126));  // ties to even
  CHECK(f16_to_f32(quantise_q4_0(x, q4)) == f16_to_f32(f32_to_f16(127.0f / 8)));
  CHECK((q4[3] == 0 && q4[4] == 15 && q4[5] == 8));

  for (const float bad : {NAN, HUGE_VALF, -HUGE_VALF}) {
    x[9] = bad;
    CHECK(std::isnan(f16_to_f32(quantise_q8_0(x, q8))));
    CHECK(std::isnan(f16_to_f32(quantise_q4_0(x, q4))));
  }
  x[9] = 1e30f;  // the scale passes f16: what comes out is no number, not a wrong one
  const float product = f16_to_f32(quantise_q8_0(x, q8)) * static_cast<float>(q8[0]);
  CHECK(std::isnan(product));
}

TEST_CASE("kv rows: a head_dim that blocks can't divide is refused") {
  KvGeometry g = geometry(DType::f16, 16);
  g.head_dim = 80;
  CHECK_NOTHROW(g.check());
  g.v_type = DType::q8_0;
  CHECK_THROWS_WITH(g.check(), "head_dim: expected a multiple of 32 for K in f16 and V in q8_0, found 80");
  g.v_type = DType::f16, g.k_type = DType::q4_0;
  CHECK_THROWS_WITH(g.check(), "head_dim: expected a multiple of 32 for K in q4_0 and V in f16, found 80");
}

}  // namespace foundry
