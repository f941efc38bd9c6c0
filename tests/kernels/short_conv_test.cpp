// short_conv: every device against a sum in double, and against itself: a row's bits and a state's do not depend on
// how a sequence's rows are cut into runs, on who is beside it, or on the threads.
#include <doctest/doctest.h>

#include "kernels/support.h"

namespace foundry::kernel_tests {
namespace {

/// GPUs have none yet.
std::vector<std::string> convolving_devices() {
  std::vector<std::string> names = all_devices();
  std::erase_if(names, [](const std::string& name) { return make_device({name, 1, {}})->info().gpu; });
  return names;
}

struct Sequence {
  uint32_t start, rows;
  std::vector<float> before;  // its state; none: nothing has come before
};

struct Convolution {
  ShortConvParams p{};
  std::vector<float> taps, bias, x;
  std::vector<Sequence> sequences;

  uint32_t width() const { return p.channels * (p.gated == 1 ? 3 : 1); }
  uint64_t state() const { return uint64_t{p.taps - 1} * p.channels; }
  explicit Convolution(const cases::Case& one) {
    Random random(one.seed());
    p.channels = one.number("channels"), p.taps = one.number("taps"), p.gated = one.number("gated");
    for (const cases::SequenceCase& s : one.sequences()) {
      sequences.push_back({s.start, s.rows, s.start == 0 ? std::vector<float>{} : random_floats(random, state())});
      p.n_rows += s.rows;
    }
    taps = random_floats(random, uint64_t{p.channels} * p.taps);
    if (one.number("bias", 0) == 1) bias = random_floats(random, p.channels);
    x = random_floats(random, uint64_t{p.n_rows} * width());
  }
};

struct Results {
  std::vector<float> rows;
  std::vector<std::vector<float>> states;  // behind each sequence
};

/// Each sequence in runs of at most `cut` rows, in one step; their states have another layer's before them, which
/// stays as it is.
Results run(TestDevice& device, const Convolution& c, uint32_t cut, const std::string& who) {
  const WeightData taps = weight_from(c.taps, c.p.channels, c.p.taps), bias = weight_from(c.bias, 1, c.bias.size());
  const auto weight = prepare(*device, taps, WeightUse::table);
  const auto added = c.bias.empty() ? nullptr : prepare(*device, bias, WeightUse::table);
  const Guarded in(*device, c.x), out(*device, uint64_t{c.p.n_rows} * c.p.channels * 4);
  const std::vector<float> another(5, 7.0f);
  std::vector<Guarded> states;
  std::vector<StateRun> runs;
  uint32_t row = 0;
  for (const Sequence& s : c.sequences) {
    std::vector<float> kept = another;
    kept.insert(kept.end(), s.before.begin(), s.before.end());
    kept.resize(another.size() + c.state(), NAN);
    states.emplace_back(*device, kept);
  }
  for (size_t i = 0; i < c.sequences.size(); ++i) {
    const uint64_t at = states[i].address();
    for (uint32_t done = 0; done < c.sequences[i].rows; done += cut) {
      const uint32_t n = std::min(cut, c.sequences[i].rows - done);
      runs.push_back({done == 0 && c.sequences[i].before.empty() ? 0 : at, at, row, n});
      row += n;
    }
  }
  ShortConvParams p = c.p;
  p.state_at_bytes = another.size() * sizeof(float);
  device.step(plain_shape(p.n_rows, c.width()), who, [&] {
    device->short_conv(
        {p, runs.data(), static_cast<u32>(runs.size()), weight.get(), added.get(), in.span(), out.span()});
  });
  Results results{out.result(who), {}};
  for (const Guarded& state : states) {
    const std::vector<float> kept = state.result(who);
    CHECK(rows_of(kept, another.size(), 0, 1) == another);
    results.states.emplace_back(kept.begin() + static_cast<int64_t>(another.size()), kept.end());
  }
  return results;
}

}  // namespace

TEST_CASE("short_conv agrees with a sum in double, and keeps its last values") {
  for (const std::string& name : convolving_devices()) {
    TestDevice device(name, 2);
    for (const cases::Case& one : cases_of("short_conv")) {
      const Convolution c(one);
      const Results found = run(device, c, UINT32_MAX, one.text);
      std::vector<float> expected;
      std::vector<double> sizes;
      uint64_t row = 0;
      for (size_t i = 0; i < c.sequences.size(); ++i) {
        const Sequence& s = c.sequences[i];
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
            const double times = c.p.gated == 1 ? c.x[(row + t) * c.width() + c.p.channels + channel] : 1;
            expected.push_back(static_cast<float>(sum * times)), sizes.push_back(std::fabs(size * times));
          }
        std::vector<float> last;
        for (int64_t t = int64_t{s.rows} - (c.p.taps - 1); t < s.rows; ++t)
          for (uint64_t channel = 0; channel < c.p.channels; ++channel) last.push_back(value(t, channel));
        CHECK_MESSAGE(compare_bits(found.states[i], last) == "", name, ", ", one.text);
        row += s.rows;
      }
      const std::string off =
          compare(found.rows, expected, [&](size_t at) { return 2 * (c.p.taps + 2) * kUnit * sizes[at] + 1e-38; });
      CHECK_MESSAGE(off == "", name, ", ", one.text, ": ", off);
    }
  }
}

TEST_CASE("short_conv: the same bits however rows are cut, beside others, and on any threads") {
  for (const std::string& name : convolving_devices()) {
    TestDevice device(name, 2), alone(name, 1);
    for (const cases::Case& one : cases_of("short_conv")) {
      const Convolution c(one);
      const Results whole = run(device, c, UINT32_MAX, one.text);
      for (const uint32_t cut : {1u, 2u, 5u}) {
        const Results parts = run(alone, c, cut, one.text);
        CHECK_MESSAGE(compare_bits(parts.rows, whole.rows) == "", name, ", ", one.text, " in runs of ", cut);
        for (size_t i = 0; i < parts.states.size(); ++i) CHECK(compare_bits(parts.states[i], whole.states[i]) == "");
      }
      Convolution last = c;  // the last sequence by itself
      last.sequences = {c.sequences.back()};
      last.p.n_rows = last.sequences[0].rows;
      last.x = rows_of(c.x, c.width(), c.p.n_rows - last.p.n_rows, last.p.n_rows);
      CHECK(compare_bits(run(device, last, UINT32_MAX, one.text).rows,
                         rows_of(whole.rows, c.p.channels, c.p.n_rows - last.p.n_rows, last.p.n_rows)) == "");
    }
  }
}

}  // namespace foundry::kernel_tests
