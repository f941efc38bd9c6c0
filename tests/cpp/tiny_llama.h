// A tiny llama for the engine's tests: its graph, and a GGUF image with seeded random weights, in memory.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "formats/half.h"
#include "gguf/gguf.h"
#include "graph/graph.h"

namespace foundry::test {

struct TinyShape {
  uint32_t vocab = 96, hidden = 32, layers = 2, heads = 4, kv_heads = 2, head_dim = 8, ffn = 64, max_seq_len = 300;
  uint32_t experts = 0, used = 2;                             // in place of a feed-forward network; 0: none
  uint32_t experts_from = 0;                                  // the first layer that has them
  uint32_t convolve = 0;                                      // the first so many layers are short convolutions
  bool delta = false;                                         // these are delta nets, and attention has gates
  uint32_t k_heads = 2, v_heads = 4, head_k = 8, head_v = 8;  // of delta nets
  uint32_t window = 0, full_every = 1;  // each full_every-th layer sees all, the others the last `window` tokens
};

inline ValueId tiny_attention(Graph& g, const TinyShape& s, uint32_t l, ValueId x, ValueId n, uint32_t full,
                              uint32_t windowed, uint32_t next[2]) {
  const std::string at = "layer " + std::to_string(l) + " ", blk = "blk." + std::to_string(l) + ".";
  const auto w = [&](const char* name, uint32_t rows, uint32_t cols) {
    return g.weight(blk + name + ".weight", rows, cols);
  };
  const uint32_t of_q = s.heads * s.head_dim;
  ValueId q = g.linear(n, w("attn_q", (s.delta ? 2 : 1) * of_q, s.hidden), kNone, at + "q");
  const ValueId joint = q;
  if (s.delta) q = g.resize_heads(q, {s.heads, 2 * s.head_dim, s.head_dim}, at + "q of q and gate");
  ValueId k = g.linear(n, w("attn_k", s.kv_heads * s.head_dim, s.hidden), kNone, at + "k");
  const ValueId v = g.linear(n, w("attn_v", s.kv_heads * s.head_dim, s.hidden), kNone, at + "v");
  q = g.rope(q, {s.heads, s.head_dim, s.head_dim, 0, 10000.0f, 1}, kNone, at + "rope q");
  k = g.rope(k, {s.kv_heads, s.head_dim, s.head_dim, 0, 10000.0f, 1}, kNone, at + "rope k");
  const uint32_t group = (l + 1) % s.full_every == 0 ? full : windowed, layer = next[group]++;
  g.kv_append(k, v, group, layer, at + "kv_append");
  ValueId a =
      g.attention(q, {s.heads, 1.0f / std::sqrt(static_cast<float>(s.head_dim)), group, layer}, at + "attention");
  if (s.delta) a = g.sigmoid_gate(a, joint, {s.heads}, at + "attention gate");
  return g.add(x, g.linear(a, w("attn_output", s.hidden, s.heads * s.head_dim), kNone, at + "o"),
               at + "attention residual");
}

/// A recurrent layer's operator, projected back.
inline ValueId tiny_recurrent(Graph& g, const TinyShape& s, uint32_t l, ValueId n) {
  const std::string at = "layer " + std::to_string(l) + " ", blk = "blk." + std::to_string(l) + ".";
  const auto w = [&](const std::string& name, uint64_t rows, uint64_t cols) {
    return g.weight(blk + name, rows, cols);
  };
  const auto linear = [&](ValueId x, const std::string& name, uint32_t rows, uint32_t cols) {
    return g.linear(x, w(name + ".weight", rows, cols), kNone, at + name);
  };
  constexpr uint32_t taps = 3;
  if (!s.delta) {
    g.recurrent = {s.convolve, {(taps - 1) * s.hidden}};
    const ValueId bcx = linear(n, "shortconv.in_proj", 3 * s.hidden, s.hidden);
    const WeightId weight = w("shortconv.conv.weight", s.hidden, taps);
    return linear(g.short_conv(bcx, {l, 1}, weight, kNone, at + "short_conv"), "shortconv.out_proj", s.hidden,
                  s.hidden);
  }
  const uint32_t values = s.v_heads * s.head_v, channels = 2 * s.k_heads * s.head_k + values;
  g.recurrent = {s.convolve, {(taps - 1) * channels, values * s.head_k}};
  ValueId mixed = linear(n, "attn_qkv", channels, s.hidden);
  mixed = g.short_conv(mixed, {l, 0, 0, 1}, w("ssm_conv1d.weight", channels, taps), kNone, at + "short_conv");
  const ValueId alpha = linear(n, "ssm_alpha", s.v_heads, s.hidden), beta = linear(n, "ssm_beta", s.v_heads, s.hidden);
  const ValueId z = linear(n, "attn_gate", values, s.hidden);
  const ValueId out =
      g.gated_delta({mixed, alpha, beta, z}, {l, 1, s.k_heads, s.v_heads, s.head_k, s.head_v, 1e-5f, 1e-6f},
                    {w("ssm_a", 1, s.v_heads), w("ssm_dt.bias", 1, s.v_heads), w("ssm_norm.weight", 1, s.head_v)},
                    at + "gated_delta");
  return linear(out, "ssm_out", s.hidden, values);
}

inline Graph tiny_graph(const TinyShape& s) {
  Graph g;
  g.arch = {"llama", s.layers, s.heads, s.kv_heads, s.head_dim, s.hidden, s.vocab, s.max_seq_len};
  const uint32_t attend = s.layers - s.convolve;
  const uint32_t n_full = s.window == 0 ? attend : s.layers / s.full_every;
  const uint32_t full = g.add_group({n_full, s.kv_heads, s.head_dim, 0});
  const uint32_t windowed = n_full == attend ? full : g.add_group({attend - n_full, s.kv_heads, s.head_dim, s.window});
  uint32_t next[2] = {0, 0};  // layer of each group
  ValueId x = g.embed(g.weight("token_embd.weight", s.vocab, s.hidden), 1, "embed");
  for (uint32_t l = 0; l < s.layers; ++l) {
    const std::string at = "layer " + std::to_string(l) + " ", blk = "blk." + std::to_string(l) + ".";
    const auto w = [&](const char* name, uint32_t rows, uint32_t cols) {
      return g.weight(blk + name + ".weight", rows, cols);
    };
    const ValueId n = g.rms_norm(x, w("attn_norm", 1, s.hidden), 1e-5f, at + "attn_norm");
    if (l < s.convolve) {
      x = g.add(x, tiny_recurrent(g, s, l, n), at + "recurrent residual");
    } else {
      x = tiny_attention(g, s, l, x, n, full, windowed, next);
    }
    const ValueId m = g.rms_norm(x, w("ffn_norm", 1, s.hidden), 1e-5f, at + "ffn_norm");
    if (s.experts != 0 && l >= s.experts_from) {
      const auto of_experts = [&](const char* name, uint32_t rows, uint32_t cols) {
        return g.experts(blk + name + ".weight", s.experts, rows, cols);
      };
      const ValueId scores = g.linear(m, w("ffn_gate_inp", s.experts, s.hidden), kNone, at + "scores");
      RouteOp route;
      route.n_used = s.used, route.normalise = 1;
      const auto [chosen, weights] = g.route(scores, route, kNone, at + "route");
      const auto routed = [&](ValueId from, WeightId weight, const char* name) {
        return g.linear_routed(from, chosen, weight, kNone, at + name);
      };
      const ValueId gates = routed(m, of_experts("ffn_gate_exps", s.ffn, s.hidden), "experts gate");
      const ValueId ups = routed(m, of_experts("ffn_up_exps", s.ffn, s.hidden), "experts up");
      const ValueId made = routed(g.swiglu(gates, ups, at + "experts swiglu"),
                                  of_experts("ffn_down_exps", s.hidden, s.ffn), "experts down");
      x = g.add(x, g.sum_routed(made, weights, at + "experts sum"), at + "ffn residual");
      continue;
    }
    const ValueId gate = g.linear(m, w("ffn_gate", s.ffn, s.hidden), kNone, at + "gate");
    const ValueId up = g.linear(m, w("ffn_up", s.ffn, s.hidden), kNone, at + "up");
    x = g.add(x, g.linear(g.swiglu(gate, up, at + "swiglu"), w("ffn_down", s.hidden, s.ffn), kNone, at + "down"),
              at + "ffn residual");
  }
  x = g.rms_norm(g.select_rows(x, "select rows"), g.weight("output_norm.weight", 1, s.hidden), 1e-5f, "output_norm");
  g.logits = g.linear(x, g.weight("token_embd.weight", s.vocab, s.hidden), kNone, "output");
  return g;
}

/// Every weight of a graph: vectors in f32, matrices in Q8_0.
class TinyFile {
 public:
  explicit TinyFile(const Graph& graph, uint32_t seed = 1) {
    std::mt19937 random(seed);
    std::vector<std::string> data;
    put("GGUF"), number<uint32_t>(3), number<uint64_t>(graph.weights.size()), number<uint64_t>(0);
    uint64_t offset = 0;
    for (const WeightRef& w : graph.weights) {
      const bool vector = w.rows == 1 || w.cols % 32 != 0;
      number<uint64_t>(w.name.size()), put(w.name);
      number<uint32_t>(w.rows == 1 ? 1 : w.experts != 0 ? 3 : 2), number<uint64_t>(w.cols);
      if (w.rows != 1) number<uint64_t>(w.rows);
      if (w.experts != 0) number<uint64_t>(w.experts);
      number<uint32_t>(vector ? 0 : 8), number<uint64_t>(offset);
      data.push_back(vector ? floats(w.rows * w.cols, random)
                            : q8_0(std::max<uint64_t>(w.experts, 1) * w.rows * w.cols / 32, random));
      if (w.name.ends_with("ssm_a"))  // else states grow with every token
        for (size_t i = 3; i < data.back().size(); i += 4) data.back()[i] = static_cast<char>(data.back()[i] ^ 0x80);
      data.back().resize((data.back().size() + 31) / 32 * 32);
      data_at_[w.name] = offset;
      offset += data.back().size();
    }
    bytes_.resize((bytes_.size() + 31) / 32 * 32);
    for (auto& [name, at] : data_at_) at += bytes_.size();
    for (const std::string& d : data) put(d);
    aligned_.resize(bytes_.size() / 8 + 1);
    std::memcpy(aligned_.data(), bytes_.data(), bytes_.size());
  }
  /// One value of a vector, before open().
  void set_vector(const std::string& name, size_t index, float value) {
    std::memcpy(reinterpret_cast<char*>(aligned_.data()) + data_at_.at(name) + index * sizeof value, &value,
                sizeof value);
  }
  /// The file must outlive what is opened.
  std::shared_ptr<GgufFile> open() const {
    return GgufFile::parse({reinterpret_cast<const std::byte*>(aligned_.data()), bytes_.size()}, "tiny");
  }

 private:
  void put(const std::string& s) { bytes_ += s; }
  template <class T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static std::string floats(uint64_t n, std::mt19937& random) {
    std::string s;
    for (uint64_t i = 0; i < n; ++i) {
      const float f = 0.5f + static_cast<float>(random() % 1000) / 1000.0f;
      s.append(reinterpret_cast<const char*>(&f), sizeof f);
    }
    return s;
  }
  static std::string q8_0(uint64_t n_blocks, std::mt19937& random) {
    std::string s;
    for (uint64_t b = 0; b < n_blocks; ++b) {
      const uint16_t scale = f32_to_f16(0.001f + static_cast<float>(random() % 1000) * 2e-6f);
      s.append(reinterpret_cast<const char*>(&scale), 2);
      for (int i = 0; i < 32; ++i) s.push_back(static_cast<char>(static_cast<int>(random() % 255) - 127));
    }
    return s;
  }
  std::map<std::string, uint64_t> data_at_;  // of each weight, in the file
  std::string bytes_;
  std::vector<uint64_t> aligned_;
};

}  // namespace foundry::test
