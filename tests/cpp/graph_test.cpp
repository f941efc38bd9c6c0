// The graph: built, verified, written and read back, fused, given buffers; and nothing that a file says makes it crash.
#include "graph/graph.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "cpp/tiny_llama.h"

namespace foundry {
namespace {

constexpr uint32_t kRows = 5, kSelected = 2;

Graph tiny(uint32_t layers = 1) {
  test::TinyShape shape;
  shape.layers = layers;
  return test::tiny_graph(shape);
}

/// A legal graph of random ops over values of one width; every kind that has no state, biases and shared inputs among them.
Graph random_graph(uint32_t seed) {
  std::mt19937 random(seed);
  Graph g;
  g.arch = {"random", 1, 2, 1, 8, 16, 16, 64};
  g.add_group({1, 1, 8, 0});
  const WeightId table = g.weight("table", 16, 16), scale = g.weight("scale", 1, 16), bias = g.weight("bias", 1, 16);
  std::vector<ValueId> live{g.embed(table, "embed")};
  const auto any = [&] { return live[live.size() - 1 - random() % std::min<size_t>(live.size(), 4)]; };
  const auto grow = [&](uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) {
      const std::string name = "op " + std::to_string(g.ops.size());
      switch (random() % 6) {
        case 0: live.push_back(g.rms_norm(any(), scale, 1e-5f, name)); break;
        case 1: live.push_back(g.swiglu(any(), any(), name)); break;
        case 2: live.push_back(g.add(any(), any(), name)); break;
        default: {
          const WeightId w = g.weight("w" + std::to_string(random() % 5), 16, 16);
          live.push_back(g.linear(any(), w, random() % 3 == 0 ? bias : kNone, name));
          if (random() % 2 == 0) live.push_back(g.add(any(), live.back(), name + " sum"));
        }
      }
    }
  };
  grow(3 + random() % 20);
  live = {g.select_rows(any(), "select rows")};
  grow(1 + random() % 6);
  g.logits = live.back();
  return g;
}

/// What a graph computes, as formulas: of the logits, and of what goes into each K/V append.
std::vector<std::string> meaning(const Graph& g) {
  std::vector<std::string> of(g.values.size()), effects;
  std::map<std::string, size_t> known;  // formulas by number, so that they stay short
  const auto number = [&](const std::string& formula) {
    return "#" + std::to_string(known.emplace(formula, known.size()).first->second) ;
  };
  const auto in = [&](const Op& op, size_t i) { return of[static_cast<size_t>(op.inputs[i])]; };
  const auto weight = [&](const Op& op, size_t i) {
    return op.weights[i] == kNone ? "none" : g.weights[static_cast<size_t>(op.weights[i])].name;
  };
  const auto sum = [](std::string a, std::string b) {
    if (b < a) std::swap(a, b);
    return "(" + a + " + " + b + ")";
  };
  for (const Op& op : g.ops) {
    if (op.kind == OpKind::linear) {
      for (size_t i = 0; i < op.outputs.size(); ++i) {
        std::string y = "linear(" + in(op, 0) + ", " + weight(op, i) + ", " + weight(op, op.outputs.size() + i) + ")";
        if (op.inputs.size() > 1) y = sum(y, in(op, 1));
        of[static_cast<size_t>(op.outputs[i])] = y;
      }
      continue;
    }
    Op bare = op;  // every attribute, but neither ids nor name
    bare.name = "", bare.inputs = {}, bare.outputs = {}, bare.weights = {};
    Graph holder;
    holder.ops = {bare};
    std::string y = holder.serialize();
    for (size_t i = 0; i < op.inputs.size(); ++i) y += " " + in(op, i);
    for (size_t i = 0; i < op.weights.size(); ++i) y += " " + weight(op, i);
    if (op.kind == OpKind::add) y = sum(in(op, 0), in(op, 1));
    if (op.outputs.empty()) effects.push_back(y);
    else of[static_cast<size_t>(op.outputs[0])] = y;
  }
  (void)number;
  effects.push_back(of[static_cast<size_t>(g.logits)]);
  return effects;
}

}  // namespace

}  // namespace foundry
