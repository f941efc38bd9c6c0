// gated_delta: a head of V after the other, each row's formula as params.h has it.
#include <algorithm>
#include <cmath>
#include <vector>

#include "device/reference/ops.h"

namespace foundry::reference {
namespace {

/// x divided by its length, times `scale`.
std::vector<double> directed(const float* x, u32 n, double eps, double scale) {
  double squares = 0;
  for (u32 i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  std::vector<double> y(n);
  for (u32 i = 0; i < n; ++i) y[i] = x[i] * scale / std::sqrt(squares + eps);
  return y;
}

double softplus(double x) { return x > 30 ? x : std::log1p(std::exp(x)); }

/// A row of head `h`: takes the state `s` [head_k, head_v] on, and writes what comes out.
void row_of_head(const GatedDeltaArgs& args, u64 row, u32 h, float* s) {
  const GatedDeltaParams& p = args.p;
  const u64 keys = u64{p.k_heads} * p.head_k, values = u64{p.v_heads} * p.head_v;
  const float* mixed = args.mixed.as<float>() + row * (2 * keys + values);
  const u64 at_key = u64{h % p.k_heads} * p.head_k;
  const std::vector<double> q = directed(mixed + at_key, p.head_k, p.qk_eps, 1 / std::sqrt(p.head_k));
  const std::vector<double> k = directed(mixed + keys + at_key, p.head_k, p.qk_eps, 1);
  const float* v = mixed + 2 * keys + u64{h} * p.head_v;
  const auto of = [h](const Weight* weight) {
    return static_cast<double>(reinterpret_cast<const float*>(weight->mapped)[h]);
  };
  const u64 scalar = row * p.v_heads + h;
  const double kept = std::exp(of(args.decay) * softplus(args.alpha.as<float>()[scalar] + of(args.bias)));
  const double beta = 1 / (1 + std::exp(-static_cast<double>(args.beta.as<float>()[scalar])));

  std::vector<double> out(p.head_v);
  double squares = 0;
  for (u32 d = 0; d < p.head_v; ++d) {
    double known = 0;
    for (u32 i = 0; i < p.head_k; ++i) known += kept * s[u64{i} * p.head_v + d] * k[i];
    const double delta = beta * (v[d] - known);
    for (u32 i = 0; i < p.head_k; ++i) {
      const double next = kept * s[u64{i} * p.head_v + d] + k[i] * delta;
      out[d] += next * q[i];
      s[u64{i} * p.head_v + d] = static_cast<float>(next);
    }
    squares += out[d] * out[d];
  }
  const auto* norm = reinterpret_cast<const float*>(args.norm->mapped);
  const u64 at = row * values + u64{h} * p.head_v;
  for (u32 d = 0; d < p.head_v; ++d) {
    const double z = args.z.as<float>()[at + d], normed = out[d] / std::sqrt(squares / p.head_v + p.eps) * norm[d];
    args.out.as<float>()[at + d] = static_cast<float>(normed * z / (1 + std::exp(-z)));
  }
}

}  // namespace

void gated_delta(const GatedDeltaArgs& args) {
  const GatedDeltaParams& p = args.p;
  const u64 matrix = u64{p.head_k} * p.head_v;
  for (u32 i = 0; i < args.n_runs; ++i) {
    const StateRun& run = args.runs[i];
    for (u32 h = 0; h < p.v_heads; ++h) {
      std::vector<float> s(matrix, 0.0f);
      const auto at = [&](u64 state) { return reinterpret_cast<float*>(state + p.state_at_bytes) + h * matrix; };
      if (run.from != 0) s.assign(at(run.from), at(run.from) + matrix);
      for (u32 r = 0; r < run.n_rows; ++r) row_of_head(args, u64{run.first_row} + r, h, s.data());
      std::copy(s.begin(), s.end(), at(run.to));
    }
  }
}

}  // namespace foundry::reference
