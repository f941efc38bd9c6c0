// Graphs for tests: a tiny llama's, and random ones.
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "cpp/tiny_llama.h"

namespace foundry::test {

inline constexpr uint32_t kRows = 5, kSelected = 2;

inline Graph tiny(uint32_t layers = 1) {
  TinyShape shape;
  shape.layers = layers;
  return tiny_graph(shape);
}

/// A legal graph of random ops over values of one width: shared inputs, biases, sums, results that nothing reads.
inline Graph random_graph(uint32_t seed) {
  std::mt19937 random(seed);
  Graph g;
  g.arch = {"random", 1, 2, 1, 8, 16, 16, 64};
  g.add_group({1, 1, 8, 0});
  const WeightId scale = g.weight("scale", 1, 16), bias = g.weight("bias", 1, 16);
  std::vector<ValueId> known{g.embed(g.weight("table", 16, 16), 1, "embed")};
  const auto any = [&] { return known[known.size() - 1 - random() % std::min<size_t>(known.size(), 4)]; };
  const auto grow = [&](uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) {
      const std::string name = "op " + std::to_string(g.ops.size());
      const uint32_t kind = random() % 7;
      if (kind == 0) known.push_back(g.rms_norm(any(), scale, 1e-5f, name));
      if (kind == 1) known.push_back(g.swiglu(any(), any(), name));
      if (kind == 2) known.push_back(g.add(any(), any(), name));
      if (kind == 6) {
        RouteOp route;
        route.n_used = 1 + random() % 3, route.normalise = random() % 2;
        const auto [chosen, weights] = g.route(any(), route, random() % 3 == 0 ? bias : kNone, name + " route");
        const WeightId experts = g.experts("experts " + std::to_string(random() % 2), 16, 16, 16);
        ValueId made = g.linear_routed(any(), chosen, experts, kNone, name + " experts");
        if (random() % 2 == 0) made = g.linear_routed(made, chosen, experts, kNone, name + " experts again");
        known.push_back(g.sum_routed(made, weights, name + " sum of experts"));
      }
      if (kind < 3 || kind == 6) continue;
      const WeightId weight = g.weight("w" + std::to_string(random() % 5), 16, 16);
      known.push_back(g.linear(any(), weight, random() % 3 == 0 ? bias : kNone, name));
      if (random() % 2 == 0) known.push_back(g.add(any(), known.back(), name + " sum"));
    }
  };
  grow(3 + random() % 20);
  known = {g.select_rows(any(), "select rows")};
  grow(1 + random() % 6);
  g.logits = any();  // ops may follow the logits
  return g;
}

inline std::vector<Graph> graphs() {
  std::vector<Graph> all{tiny(1), tiny(3)};
  for (uint32_t seed = 0; seed < 300; ++seed) all.push_back(random_graph(seed));
  return all;
}

inline Op& op(Graph& g, const std::string& name) {
  for (Op& o : g.ops)
    if (o.name == name) return o;
  throw ValueError("no op " + name);
}

/// Expects an error of this type whose text has these parts.
template <class E, class F>
void expect_error(const F& function, const std::vector<std::string>& parts) {
  try {
    function();
    FAIL("accepted, expected: " << parts[0]);
  } catch (const E& error) {
    for (const std::string& part : parts)
      CHECK_MESSAGE(std::string(error.what()).find(part) != std::string::npos, error.what(), " lacks ", part);
  }
}

}  // namespace foundry::test
