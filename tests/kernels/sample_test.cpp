// sample: every device draws as the definition does, but where a sum's rounding decides.
#include "base/sample.h"

#include <doctest/doctest.h>

#include <limits>
#include <map>

#include "kernels/support.h"

namespace foundry::kernel_tests {
namespace {

constexpr float kNear = 3e-6f;  // of the probability counted: f32 sums of thousands

std::vector<float> logits_of(const cases::Case& one, Random& random, uint64_t n) {
  std::vector<float> x = random_floats(random, n);
  const float step = one.number("ties") == 0 ? 0.0f : 0.5f;  // many equal ones
  for (float& value : x) value = step == 0 ? 4 * value : step * std::round(4 * value / step);
  return x;
}

/// The token, or one that a draw a little beside this one gives.
bool agrees(std::span<const float> logits, SampleParams p, int32_t found) {
  std::vector<std::pair<float, int32_t>> room;
  for (const float off : {0.0f, -kNear, kNear}) {
    SampleParams beside = p;
    beside.uniform = std::clamp(p.uniform + off, 1e-8f, 1 - 1e-7f);
    if (sample(logits, beside, room) == found) return true;
    beside.top_p = p.top_p < 1 ? p.top_p * (1 + off) : p.top_p;
    if (sample(logits, beside, room) == found) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("sample draws as its definition does") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name);
    for (const cases::Case& one : cases_of("sample")) {
      Random random(one.seed());
      const uint32_t rows = one.number("rows"), vocab = one.number("vocab");
      const std::vector<float> logits = logits_of(one, random, uint64_t{rows} * vocab);
      const Guarded in(*device, logits), out(*device, rows * sizeof(int32_t));
      for (uint32_t draw = 0; draw < one.number("draws"); ++draw) {
        std::vector<SampleParams> params(rows);
        for (SampleParams& p : params)
          p = {static_cast<float>(one.number("temperature")) / 10, one.number("top_k"),
               static_cast<float>(one.number("top_p")) / 100, static_cast<float>(one.number("min_p")) / 100,
               (static_cast<float>(random.below(1 << 23)) + 0.5f) * 0x1p-23f};
        device.step(plain_shape(rows, vocab), one.text,
                    [&] { device->sample({rows, vocab, params.data(), in.span(), out.span()}); });
        CHECK_MESSAGE(out.guards_intact(), name, ", ", one.text, ": a byte outside the output was written");
        const std::vector<int32_t> found = out.read<int32_t>();
        for (uint32_t r = 0; r < rows; ++r)
          CHECK_MESSAGE(agrees(std::span(logits).subspan(uint64_t{r} * vocab, vocab), params[r], found[r]), name, ", ",
                        one.text, ": row ", r, " at ", params[r].uniform, " found ", found[r]);
      }
    }
  }
}

namespace {

/// Rows in which a threshold is hard to find.
const std::vector<std::pair<std::string, std::function<float(Random&, uint32_t id)>>>& hard_rows() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  static const std::vector<std::pair<std::string, std::function<float(Random&, uint32_t id)>>> all = {
      {"all equal", [](Random&, uint32_t) { return 2.5f; }},
      {"all zeros of both signs", [](Random& random, uint32_t) { return random.below(2) == 0 ? 0.0f : -0.0f; }},
      {"nearly equal", [](Random& random, uint32_t) { return 20 + 0x1p-19f * static_cast<float>(random.below(4000)); }},
      {"two values", [](Random& random, uint32_t) { return random.below(3) == 0 ? 1.0f : 0.75f; }},
      {"a few above many ties", [](Random& random, uint32_t id) { return id % 97 == 5 ? 5 + random.unit() : 3.0f; }},
      {"peaked", [](Random& random, uint32_t) { return random.below(50) == 0 ? 12 * random.unit() : -9.0f; }},
      {"around zero", [](Random& random, uint32_t) { return std::ldexp(random.unit(), -1 - int(random.below(60))); }},
      {"huge and tiny",
       [](Random& random, uint32_t id) {
         return id % 2 == 0 ? -1e30f * random.unit() * random.unit() : random.unit() - 1e30f;
       }},
      {"masked", [](Random& random, uint32_t) { return random.below(4) == 0 ? 3 * random.unit() : -kInfinity; }},
      {"all but one masked", [](Random&, uint32_t id) { return id == 0 ? -70.0f : -kInfinity; }},
      {"neighbours alone", [](Random& random, uint32_t id) { return id < 40 ? 8 + random.unit() : random.unit(); }},
  };
  return all;
}

/// temperature, top_k, top_p, min_p.
constexpr SampleParams kHardParams[] = {
    {1, 40, 0.95f, 0.05f, 0}, {1, 0, 0.5f, 0, 0}, {0.7f, 256, 1, 0, 0},     {50, 257, 0.9f, 0, 0},
    {1, 900, 0.3f, 0.01f, 0}, {1, 0, 1, 0.3f, 0}, {1e-30f, 0, 0.99f, 0, 0}, {1e30f, 0, 1, 0, 0},
    {1, 1000000, 0, 0, 0},    {1, 3, 1, 1, 0},    {2, 2500, 0.999f, 0, 0},  {0, 40, 0.5f, 0.5f, 0},
};

}  // namespace

TEST_CASE("sample draws as its definition does where a threshold is hard to find, and the same each time") {
  static std::map<std::string, std::vector<int32_t>> drawn;  // by the schedules before: their runs are one program's
  for (const std::string& name : all_devices()) {
    TestDevice device(name);
    for (const uint32_t vocab : {1u, 3u, 1025u, 4099u})
      for (const auto& [what, value] : hard_rows()) {
        Random random(vocab);
        constexpr uint32_t kRows = std::size(kHardParams);
        std::vector<float> logits;  // the second row begins at an odd place
        for (uint32_t row = 0; row < kRows; ++row)
          for (uint32_t id = 0; id < vocab; ++id) logits.push_back(value(random, id));
        std::vector<SampleParams> params(std::begin(kHardParams), std::end(kHardParams));
        for (SampleParams& p : params) p.uniform = (static_cast<float>(random.below(1 << 23)) + 0.5f) * 0x1p-23f;
        const Guarded in(*device, logits), out(*device, kRows * sizeof(int32_t));
        const std::string who = name + ", " + what + ", vocab " + std::to_string(vocab);
        for (int again = vocab < 4099 ? 1 : 0; again < 2; ++again) {
          device.step(plain_shape(kRows, vocab), who,
                      [&] { device->sample({kRows, vocab, params.data(), in.span(), out.span()}); });
          CHECK_MESSAGE(out.guards_intact(), who, ": a byte outside the output was written");
          const std::vector<int32_t> found = out.read<int32_t>();
          const auto [before, fresh] = drawn.try_emplace(who, found);
          CHECK_MESSAGE(before->second == found, who, ": another draw than before");
          if (!fresh) continue;
          for (uint32_t r = 0; r < kRows; ++r)
            CHECK_MESSAGE(agrees(std::span(logits).subspan(uint64_t{r} * vocab, vocab), params[r], found[r]), who,
                          ": row ", r, " at ", params[r].uniform, " found ", found[r]);
        }
      }
  }
}

TEST_CASE("sample draws nothing from a row with a NaN or +infinity, or with nothing but -infinity") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr uint32_t kVocab = 1000;
  for (const std::string& name : all_devices()) {
    TestDevice device(name);
    for (const float temperature : {0.0f, 1.0f})
      for (const uint32_t at : {0u, 1u, 511u, 999u}) {
        // Rows: a NaN of either sign, +infinity, all -infinity, all but one -infinity, and -infinity among others.
        std::vector<std::vector<float>> rows(6, std::vector<float>(kVocab, 0.5f));
        rows[0][at] = kNan, rows[1][at] = -kNan, rows[2][at] = kInfinity;
        rows[3].assign(kVocab, -kInfinity);
        rows[4].assign(kVocab, -kInfinity), rows[4][at] = -3;
        rows[5][at] = 2, rows[5][(at + 1) % kVocab] = -kInfinity;
        std::vector<float> logits;
        for (const auto& row : rows) logits.insert(logits.end(), row.begin(), row.end());
        const auto n = static_cast<uint32_t>(rows.size());
        const std::vector<SampleParams> params(n, SampleParams{temperature, 0, temperature == 0 ? 1 : 0.9f, 0, 1e-6f});
        const Guarded in(*device, logits), out(*device, n * sizeof(int32_t));
        device.step(plain_shape(n, kVocab), "rows that hold no logits",
                    [&] { device->sample({n, kVocab, params.data(), in.span(), out.span()}); });
        const std::vector<int32_t> found = out.read<int32_t>();
        for (const size_t row : {0, 1, 2, 3})
          CHECK_MESSAGE(found[row] == -1, name, ": row ", row, " found ", found[row]);
        CHECK_MESSAGE(found[4] == static_cast<int32_t>(at), name, ": found ", found[4]);
        CHECK_MESSAGE(found[5] >= 0, name, ": found ", found[5]);
        if (temperature == 0) CHECK(found[5] == static_cast<int32_t>(at));
      }
  }
}

}  // namespace foundry::kernel_tests
