// short_conv: every device against a sum in double, and against itself: a row's bits and a state's do not depend on
// how a sequence's rows are cut into runs, on who is beside it, or on the threads.
#include <doctest/doctest.h>

#include "kernels/state_runs.h"

namespace foundry::kernel_tests {
namespace {

struct Convolution {
  ShortConvParams p{};
  std::vector<float> taps, bias, x;
  std::vector<StateSequence> sequences;

  uint32_t n_rows() const { return p.n_rows; }
  uint32_t width() const { return p.channels * (p.gated == 1 ? 3 : 1); }
  uint64_t state() const { return uint64_t{p.taps - 1} * p.channels; }
  explicit Convolution(const cases::Case& one) {
    Random random(one.seed());
    p.channels = one.number("channels"), p.taps = one.number("taps"), p.gated = one.number("gated");
    p.silu = one.number("silu", 0);
    sequences = state_sequences(one, random, state());
    for (const StateSequence& s : sequences) p.n_rows += s.rows;
    taps = random_floats(random, uint64_t{p.channels} * p.taps);
    if (one.number("bias", 0) == 1) bias = random_floats(random, p.channels);
    x = random_floats(random, uint64_t{p.n_rows} * width());
  }
  Convolution without_others() const {
    Convolution last = *this;
    last.sequences = {sequences.back()};
    last.p.n_rows = last.sequences[0].rows;
    last.x = rows_of(x, width(), p.n_rows - last.p.n_rows, last.p.n_rows);
    return last;
  }
};

RecurrentResults run(TestDevice& device, const Convolution& c, uint32_t cut, const std::string& who) {
  const WeightData taps = weight_from(c.taps, c.p.channels, c.p.taps), bias = weight_from(c.bias, 1, c.bias.size());
  const auto weight = prepare(*device, taps, WeightUse::table);
  const auto added = c.bias.empty() ? nullptr : prepare(*device, bias, WeightUse::table);
  const Guarded in(*device, c.x), out(*device, uint64_t{c.p.n_rows} * c.p.channels * 4);
  const InStates states(*device, c.sequences, c.state(), cut);
  ShortConvParams p = c.p;
  p.state_at_bytes = states.at_bytes();
  device.step(plain_shape(p.n_rows, c.width()), who, [&] {
    device->short_conv({p, states.runs(), states.n_runs(), weight.get(), added.get(), in.span(), out.span()});
  });
  return {out.result(who), states.results(who)};
}

}  // namespace

TEST_CASE("short_conv agrees with a sum in double, and keeps its last values") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name, 2);
    for (const cases::Case& one : cases_of("short_conv")) {
      const Convolution c(one);
      const RecurrentResults found = run(device, c, UINT32_MAX, one.text);
      std::vector<float> expected;
      std::vector<double> sizes;
      uint64_t row = 0;
      for (size_t i = 0; i < c.sequences.size(); ++i) {
        const StateSequence& s = c.sequences[i];
        const auto value = [&](int64_t t, uint64_t channel) {  // of the convolution, behind the sequence's first row
          if (t < 0) return s.before.empty() ? 0.0f : s.before[(c.p.taps - 1 + t) * c.p.channels + channel];
          const float* in = &c.x[(row + t) * c.width() + channel];
          return c.p.gated == 1 ? in[0] * in[2 * c.p.channels] : in[0];
        };
        for (uint32_t t = 0; t < s.rows; ++t)
          for (uint64_t channel = 0; channel < c.p.channels; ++channel) {
            double sum = c.bias.empty() ? 0 : c.bias[channel], size = std::fabs(sum);
            for (uint32_t k = 0; k < c.p.taps; ++k) {
              const double term =
                  static_cast<double>(c.taps[channel * c.p.taps + k]) * value(int64_t{t} - (c.p.taps - 1) + k, channel);
              sum += term, size += std::fabs(term);
            }
            double times = c.p.gated == 1 ? c.x[(row + t) * c.width() + c.p.channels + channel] : 1;
            if (c.p.silu == 1) times /= 1 + std::exp(-sum * times);
            expected.push_back(static_cast<float>(sum * times)), sizes.push_back(std::fabs(size * times));
          }
        std::vector<float> last;
        for (int64_t t = int64_t{s.rows} - (c.p.taps - 1); t < s.rows; ++t)
          for (uint64_t channel = 0; channel < c.p.channels; ++channel) last.push_back(value(t, channel));
        CHECK_MESSAGE(compare_bits(found.states[i], last) == "", name, ", ", one.text);
        row += s.rows;
      }
      // silu is at most 1.1 times as steep as what goes in, and its exponential is good to 2e-7.
      const double silu = c.p.silu == 1 ? 8 : 0;
      const std::string off = compare(
          found.rows, expected, [&](size_t at) { return (2 * (c.p.taps + 2) + silu) * kUnit * sizes[at] + 1e-38; });
      CHECK_MESSAGE(off == "", name, ", ", one.text, ": ", off);
    }
  }
}

TEST_CASE("short_conv: the same bits however rows are cut, beside others, and on any threads") {
  for (const std::string& name : all_devices())
    for (const cases::Case& one : cases_of("short_conv")) {
      const Convolution c(one);
      check_cuts(name, c, c.p.channels, run, one.text);
    }
}

}  // namespace foundry::kernel_tests
