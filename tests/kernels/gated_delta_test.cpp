// gated_delta: every device against the rule in double, and against itself: a row's bits and a state's do not depend on
// how a sequence's rows are cut into runs, on who is beside it, or on the threads.
#include <doctest/doctest.h>

#include "kernels/state_runs.h"

namespace foundry::kernel_tests {
namespace {

struct Delta {
  GatedDeltaParams p{};
  std::vector<float> decay, bias, norm, mixed, alpha, beta, z;
  std::vector<StateSequence> sequences;

  uint32_t n_rows() const { return p.n_rows; }
  uint64_t keys() const { return uint64_t{p.k_heads} * p.head_k; }
  uint64_t values() const { return uint64_t{p.v_heads} * p.head_v; }
  uint64_t state() const { return values() * p.head_k; }
  explicit Delta(const cases::Case& one) {
    Random random(one.seed());
    p.k_heads = one.number("k_heads"), p.v_heads = one.number("v_heads");
    p.head_k = one.number("head_k"), p.head_v = one.number("head_v");
    p.eps = 1e-5f, p.qk_eps = 1e-6f;
    sequences = state_sequences(one, random, state());
    for (const StateSequence& s : sequences) p.n_rows += s.rows;
    for (uint32_t h = 0; h < p.v_heads; ++h) decay.push_back(-0.02f - 0.4f * std::fabs(random.unit()));
    bias = random_floats(random, p.v_heads), norm = random_floats(random, p.head_v);
    const auto scaled = [&](uint64_t n, float times) {
      std::vector<float> x = random_floats(random, n);
      for (float& one_of : x) one_of *= times;
      return x;
    };
    mixed = scaled(p.n_rows * (2 * keys() + values()), 2);
    alpha = scaled(uint64_t{p.n_rows} * p.v_heads, 4), beta = scaled(uint64_t{p.n_rows} * p.v_heads, 4);
    z = scaled(p.n_rows * values(), 4);
  }
  Delta without_others() const {
    Delta last = *this;
    last.sequences = {sequences.back()};
    last.p.n_rows = last.sequences[0].rows;
    const auto rows = [&](const std::vector<float>& x, uint64_t width) {
      return rows_of(x, width, p.n_rows - last.p.n_rows, last.p.n_rows);
    };
    last.mixed = rows(mixed, 2 * keys() + values()), last.z = rows(z, values());
    last.alpha = rows(alpha, p.v_heads), last.beta = rows(beta, p.v_heads);
    return last;
  }
};

RecurrentResults run(TestDevice& device, const Delta& d, uint32_t cut, const std::string& who) {
  const WeightData of_decay = weight_from(d.decay, 1, d.p.v_heads), of_bias = weight_from(d.bias, 1, d.p.v_heads);
  const WeightData of_norm = weight_from(d.norm, 1, d.p.head_v);
  const auto decay = prepare(*device, of_decay, WeightUse::table), bias = prepare(*device, of_bias, WeightUse::table);
  const auto norm = prepare(*device, of_norm, WeightUse::table);
  const Guarded mixed(*device, d.mixed), alpha(*device, d.alpha), beta(*device, d.beta), z(*device, d.z);
  const Guarded out(*device, d.p.n_rows * d.values() * sizeof(float));
  const InStates states(*device, d.sequences, d.state(), cut);
  GatedDeltaParams p = d.p;
  p.state_at_bytes = states.at_bytes();
  device.step(plain_shape(p.n_rows, static_cast<uint32_t>(2 * d.keys() + d.values())), who, [&] {
    device->gated_delta({p, states.runs(), states.n_runs(), decay.get(), bias.get(), norm.get(), mixed.span(),
                         alpha.span(), beta.span(), z.span(), out.span()});
  });
  return {out.result(who), states.results(who)};
}

/// A head of V through all rows of a sequence in double, as the formula has it.
struct InDouble {
  const Delta& d;
  uint32_t head;
  std::vector<double> s;  // [head_k, head_v]
  InDouble(const Delta& of, const StateSequence& sequence, uint32_t h) : d(of), head(h) {
    const uint64_t matrix = uint64_t{d.p.head_k} * d.p.head_v;
    s.assign(matrix, 0);
    if (!sequence.before.empty()) std::copy_n(sequence.before.begin() + h * matrix, matrix, s.begin());
  }
  std::vector<double> directed(const float* x, double scale) const {
    double squares = 0;
    for (uint32_t i = 0; i < d.p.head_k; ++i) squares += double{x[i]} * x[i];
    std::vector<double> y(d.p.head_k);
    for (uint32_t i = 0; i < d.p.head_k; ++i) y[i] = x[i] / std::sqrt(squares + d.p.qk_eps) * scale;
    return y;
  }
  /// What the row gives, and how large each value's terms are.
  void row(uint64_t r, float* out, double* sizes) {
    const GatedDeltaParams& p = d.p;
    const float* mixed = &d.mixed[r * (2 * d.keys() + d.values())];
    const uint64_t at_key = uint64_t{head % p.k_heads} * p.head_k;
    const auto q = directed(mixed + at_key, 1 / std::sqrt(p.head_k)), k = directed(mixed + d.keys() + at_key, 1);
    const float* v = mixed + 2 * d.keys() + uint64_t{head} * p.head_v;
    const double step = double{d.alpha[r * p.v_heads + head]} + d.bias[head];
    const double kept = std::exp(d.decay[head] * std::log1p(std::exp(step)));
    const double beta = 1 / (1 + std::exp(-double{d.beta[r * p.v_heads + head]}));
    std::vector<double> o(p.head_v);
    double squares = 0, largest = 0;
    for (uint32_t j = 0; j < p.head_v; ++j) {
      double known = 0;
      for (uint32_t i = 0; i < p.head_k; ++i) known += s[i * p.head_v + j] * k[i] * kept;
      for (uint32_t i = 0; i < p.head_k; ++i) {
        double& value = s[i * p.head_v + j];
        value = value * kept + k[i] * beta * (v[j] - known);
        o[j] += value * q[i];
        largest = std::max(largest, std::fabs(value));
      }
      squares += o[j] * o[j];
    }
    const double length = std::sqrt(squares / p.head_v + p.eps);
    for (uint32_t j = 0; j < p.head_v; ++j) {
      const double z = d.z[(r * p.v_heads + head) * p.head_v + j], times = d.norm[j] * z / (1 + std::exp(-z)) / length;
      out[j] = static_cast<float>(o[j] * times);
      sizes[j] = std::fabs(times) * (std::fabs(o[j]) + largest + std::sqrt(squares / p.head_v));
    }
  }
};

}  // namespace

TEST_CASE("gated_delta agrees with the rule in double, and so do its states") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name, 2);
    for (const cases::Case& one : cases_of("gated_delta")) {
      const Delta d(one);
      const RecurrentResults found = run(device, d, UINT32_MAX, one.text);
      std::vector<float> expected(d.p.n_rows * d.values());
      std::vector<double> sizes(expected.size());
      uint64_t first = 0;
      for (size_t i = 0; i < d.sequences.size(); ++i) {
        std::vector<float> state;
        for (uint32_t h = 0; h < d.p.v_heads; ++h) {
          InDouble head(d, d.sequences[i], h);
          for (uint64_t r = first; r < first + d.sequences[i].rows; ++r) {
            const uint64_t at = r * d.values() + uint64_t{h} * d.p.head_v;
            head.row(r, &expected[at], &sizes[at]);
          }
          state.insert(state.end(), head.s.begin(), head.s.end());
        }
        first += d.sequences[i].rows;
        // Errors of a state fade as it does, so they do not grow with the rows.
        const std::string off = compare(found.states[i], state, [&](size_t) { return 1e-5; });
        CHECK_MESSAGE(off == "", name, ", state ", i, " of ", one.text, ": ", off);
      }
      const std::string off = compare(found.rows, expected, [&](size_t at) { return 1e-6 + 5e-6 * sizes[at]; });
      CHECK_MESSAGE(off == "", name, ", ", one.text, ": ", off);
    }
  }
}

TEST_CASE("gated_delta: the same bits however rows are cut, beside others, and on any threads") {
  for (const std::string& name : all_devices())
    for (const cases::Case& one : cases_of("gated_delta")) {
      const Delta d(one);
      check_cuts(name, d, d.values(), run, one.text);
    }
}

TEST_CASE("gated_delta: a state that is another page's stays as it is") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name, 2);
    for (const cases::Case& one : cases_of("gated_delta")) {
      Delta d(one);
      d.sequences = {{1, std::vector<float>(d.state(), 0.5f)}};
      d.p.n_rows = 1;
      const RecurrentResults in_place = run(device, d, 1, one.text);
      const WeightData of_decay = weight_from(d.decay, 1, d.p.v_heads), of_bias = weight_from(d.bias, 1, d.p.v_heads);
      const WeightData of_norm = weight_from(d.norm, 1, d.p.head_v);
      const auto decay = prepare(*device, of_decay, WeightUse::table),
                 norm = prepare(*device, of_norm, WeightUse::table);
      const auto bias = prepare(*device, of_bias, WeightUse::table);
      const Guarded mixed(*device, d.mixed), alpha(*device, d.alpha), beta(*device, d.beta), z(*device, d.z);
      const Guarded from(*device, d.sequences[0].before), to(*device, d.state() * sizeof(float));
      const Guarded out(*device, d.values() * sizeof(float));
      const StateRun one_run{from.address(), to.address(), 0, 1};
      device.step(plain_shape(1, static_cast<uint32_t>(2 * d.keys() + d.values())), one.text, [&] {
        device->gated_delta({d.p, &one_run, 1, decay.get(), bias.get(), norm.get(), mixed.span(), alpha.span(),
                             beta.span(), z.span(), out.span()});
      });
      CHECK(from.result(one.text) == d.sequences[0].before);
      CHECK_MESSAGE(compare_bits(to.result(one.text), in_place.states[0]) == "", name, ", ", one.text);
      CHECK_MESSAGE(compare_bits(out.result(one.text), in_place.rows) == "", name, ", ", one.text);
    }
  }
}

}  // namespace foundry::kernel_tests
