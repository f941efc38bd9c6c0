// Mixtures of experts: route against choices worked out here, linear_routed against linear with one expert's matrix, to
// the bit (on GPUs, which have several kernels of linear, within what roundings do), and sum_routed against the
// reference.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "kernels/support.h"

namespace foundry::kernel_tests {
namespace {

StepShape routed_shape(uint32_t rows, uint32_t experts, uint32_t used, uint32_t in) {
  StepShape shape = plain_shape(rows, 1);  // no other linear layer is as wide
  shape.n_experts = experts, shape.n_used = used, shape.max_routed_in = in;
  return shape;
}

struct Choice {
  std::vector<int32_t> chosen;
  std::vector<float> weights;
};

Choice choose(TestDevice& device, RouteParams p, const std::vector<float>& scores,
              const std::vector<float>& bias = {}) {
  p.n_rows = static_cast<u32>(scores.size() / p.n_experts);
  const WeightData data = weight_from(bias, 1, bias.size());
  const auto weight = bias.empty() ? nullptr : prepare(*device, data, WeightUse::table);
  const Guarded in(*device, scores), chosen(*device, uint64_t{p.n_rows} * p.n_used * 4);
  const Guarded weights(*device, uint64_t{p.n_rows} * p.n_used * 4);
  device.step(routed_shape(p.n_rows, p.n_experts, p.n_used, 32), "route",
              [&] { device->route({p, weight.get(), in.span(), chosen.span(), weights.span()}); });
  CHECK(chosen.guards_intact());
  return {chosen.read<int32_t>(), weights.result("route")};
}

RouteParams top(u32 n_experts, u32 n_used, RouteGate gate = RouteGate::softmax, bool normalise = true) {
  return {0, n_experts, n_used, static_cast<u32>(gate), normalise ? 1u : 0u, 1.0f, 1, 1};
}

std::string compare_near(const std::vector<float>& found, const std::vector<float>& expected) {
  return compare(found, expected, [&](size_t i) { return 4 * kUnit * std::fabs(expected[i]); });
}

}  // namespace

TEST_CASE("route: the best, the best first, of equals the lower number; weights by the gate") {
  for (const std::string& name : all_devices()) {
    CAPTURE(name);
    TestDevice device(name, 2);
    const float e = std::exp(1.0f);
    Choice found = choose(device, top(4, 2), {1, 3, 2, 3});
    CHECK(found.chosen == std::vector<int32_t>{1, 3});
    CHECK(found.weights == std::vector<float>{0.5f, 0.5f});
    found = choose(device, top(3, 2), {0, 0, 1, 5, 5, 5});
    CHECK(found.chosen == std::vector<int32_t>{2, 0, 0, 1});
    CHECK(compare_near(found.weights, {e / (1 + e), 1 / (1 + e), 0.5f, 0.5f}) == "");
    found = choose(device, top(3, 2, RouteGate::softmax, false), {0, 0, 1});
    CHECK(compare_near(found.weights, {e / (2 + e), 1 / (2 + e)}) == "");
    RouteParams scaled = top(3, 1, RouteGate::sigmoid, false);
    scaled.scale = 2.5f;
    found = choose(device, scaled, {-1, 1, 0});
    CHECK(found.chosen == std::vector<int32_t>{1});
    CHECK(compare_near(found.weights, {2.5f * e / (1 + e)}) == "");
    // Scores that the gate rounds to equals are still told apart, and shut gates divide by no zero.
    found = choose(device, top(3, 1, RouteGate::sigmoid), {90, 91, 90});
    CHECK(found.chosen == std::vector<int32_t>{1});
    found = choose(device, top(3, 2, RouteGate::sigmoid), {-3000, -2000, -2500});
    CHECK(found.chosen == std::vector<int32_t>{1, 2});
    CHECK(found.weights == std::vector<float>{0, 0});
    found = choose(device, top(3, 3), {-2000, 1000, -1000});
    CHECK(found.weights == std::vector<float>{1, 0, 0});
  }
}

TEST_CASE("route: a bias and groups move the choice and not the weights") {
  for (const std::string& name : all_devices()) {
    CAPTURE(name);
    TestDevice device(name);
    Choice found = choose(device, top(3, 1, RouteGate::sigmoid, false), {2, 0, 1}, {0, 0.6f, 0});
    CHECK(found.chosen == std::vector<int32_t>{1});
    CHECK(found.weights == std::vector<float>{0.5f});
    found = choose(device, top(3, 1, RouteGate::softmax, false), {2, 0, 0}, {0, 0, 1});
    CHECK(found.chosen == std::vector<int32_t>{2});
    RouteParams grouped = top(6, 2, RouteGate::sigmoid);
    grouped.n_groups = 3, grouped.n_groups_used = 1;
    // Sums of the two best: about 1.6, 1.7, 1.5. The best of all, 4, is in no group that is used.
    found = choose(device, grouped, {1.5f, 1.2f, 1.6f, 2.0f, 4, 0});
    CHECK(found.chosen == std::vector<int32_t>{3, 2});
    grouped.n_groups_used = 2;
    found = choose(device, grouped, {1.5f, 1.2f, 1.6f, 2.0f, 4, 0});
    CHECK(found.chosen == std::vector<int32_t>{3, 2});
    grouped.n_groups_used = 3;
    found = choose(device, grouped, {1.5f, 1.2f, 1.6f, 2.0f, 4, 0});
    CHECK(found.chosen == std::vector<int32_t>{4, 3});
  }
}

TEST_CASE("route: random rows are what sorting gives, alone and in a batch") {
  for (const std::string& name : all_devices())
    for (const u32 n : {1u, 2u, 7u, 64u, 128u}) {
      CAPTURE(name);
      CAPTURE(n);
      TestDevice device(name, 3);
      Random random(n);
      const u32 n_used = (n + 7) / 8, rows = 300;
      std::vector<float> scores(uint64_t{rows} * n);
      for (float& score : scores) score = static_cast<float>(random.below(40)) / 8;  // many equals
      const Choice all = choose(device, top(n, n_used), scores);
      for (u32 r = 0; r < rows; ++r) {
        const std::vector<float> row = rows_of(scores, n, r, 1);
        std::vector<int32_t> order(n);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
          return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)];
        });
        order.resize(n_used);
        double sum = 0;
        for (const int32_t e : order) sum += std::exp(row[static_cast<size_t>(e)]);
        std::vector<float> weights;
        for (const int32_t e : order)
          weights.push_back(static_cast<float>(std::exp(row[static_cast<size_t>(e)]) / sum));
        REQUIRE(std::equal(order.begin(), order.end(), all.chosen.begin() + r * n_used));
        REQUIRE(compare_near(rows_of(all.weights, n_used, r, 1), weights) == "");
        if (r % 10 == 0)
          REQUIRE(compare_bits(choose(device, top(n, n_used), row).weights, rows_of(all.weights, n_used, r, 1)) == "");
      }
    }
}

TEST_CASE("route: with a bias every device chooses as the reference, where ranks differ by less than a float can") {
  TestDevice reference("reference");
  for (const std::string& name : other_devices())
    for (const RouteGate gate : {RouteGate::softmax, RouteGate::sigmoid})
      for (const u32 n : {5u, 32u, 96u}) {
        CAPTURE(name);
        CAPTURE(n);
        TestDevice device(name);
        Random random(n + 1000 * static_cast<u32>(gate));
        const std::vector<float> scores = activations(random, n);  // one row, for a bias belongs to its gates
        std::vector<float> bias;
        double most = scores[0], sum = 0;
        for (const float score : scores) most = std::max<double>(most, score);
        for (const float score : scores) sum += std::exp(score - most);
        for (const float score : scores)  // ranks of about 1
          bias.push_back(static_cast<float>(
              1 - (gate == RouteGate::sigmoid ? 1 / (1 + std::exp(double{-score})) : std::exp(score - most) / sum)));
        for (const u32 groups : {1u, n % 4 == 0 ? 4u : 5u})
          for (const bool normalise : {false, true}) {
            RouteParams p = top(n, n / 4, gate, normalise);
            p.n_groups = groups, p.n_groups_used = (groups + 1) / 2;
            const Choice expected = choose(reference, p, scores, bias), found = choose(device, p, scores, bias);
            CHECK(found.chosen == expected.chosen);
            CHECK(compare_near(found.weights, expected.weights) == "");
          }
      }
}

TEST_CASE("route: a score that is not finite spoils its own row alone, and chooses experts that there are") {
  for (const std::string& name : all_devices())
    for (const float value : {HUGE_VALF, -HUGE_VALF, NAN})
      for (const bool grouped : {false, true}) {
        CAPTURE(name);
        CAPTURE(value);
        TestDevice device(name);
        RouteParams p = top(4, 2, RouteGate::sigmoid);
        if (grouped) p.n_groups = 2, p.n_groups_used = 1;
        const Choice found = choose(device, p, {1, 2, 3, 4, 1, value, 3, 4, value, value, value, value, 1, 2, 3, 4});
        for (const int32_t e : found.chosen) CHECK((e >= 0 && e < 4));
        for (size_t i = 0; i < 8; i += 2) CHECK(found.chosen[i] != found.chosen[i + 1]);
        for (size_t i = 2; i < 6; ++i) CHECK(std::isnan(found.weights[i]));
        for (const size_t i : {0, 1, 6, 7}) CHECK(std::isfinite(found.weights[i]));
      }
}

namespace {

struct RoutedInputs {
  uint32_t rows, in, out, experts, used, in_parts;
  WeightData weight, biases;
  std::vector<float> x;
  std::vector<int32_t> chosen;  // each row's are different experts

  LinearRoutedParams params() const { return {rows, experts, used, in_parts, in, out}; }
};

RoutedInputs routed_inputs(const cases::Case& one) {
  Random random(one.seed());
  RoutedInputs r{one.number("rows"),
                 one.number("in"),
                 one.number("out"),
                 one.number("experts"),
                 one.number("used"),
                 1,
                 {},
                 {},
                 {},
                 {}};
  if (one.number("own", 0) != 0) r.in_parts = r.used;
  r.weight = random_weight(random, one.type("type"), uint64_t{r.experts} * r.out, r.in);
  r.weight.matrices = r.weight.kept = r.experts;
  if (one.number("bias", 0) != 0)
    r.biases = weight_from(random_floats(random, uint64_t{r.experts} * r.out), r.experts, r.out);
  r.x = activations(random, uint64_t{r.rows} * r.in_parts * r.in);
  for (uint32_t row = 0; row < r.rows; ++row) {  // the last expert is nobody's where there are more than are used
    const uint32_t of = r.experts > r.used ? r.experts - 1 : r.experts, first = random.below(of);
    for (uint32_t i = 0; i < r.used; ++i) r.chosen.push_back(static_cast<int32_t>((first + i) % of));
  }
  return r;
}

/// weight: prepared before; null: now.
std::vector<float> run_routed(TestDevice& device, const RoutedInputs& r, const std::string& who,
                              const Weight* weight = nullptr) {
  const auto own = weight == nullptr ? prepare(*device, r.weight, WeightUse::linear) : nullptr;
  if (weight == nullptr) weight = own.get();
  const auto biases = r.biases.rows == 0 ? nullptr : prepare(*device, r.biases, WeightUse::table);
  const Guarded x(*device, r.x), chosen(*device, r.chosen), out(*device, uint64_t{r.rows} * r.used * r.out * 4);
  device.step(routed_shape(r.rows, r.experts, r.used, r.in), who,
              [&] { device->linear_routed({r.params(), weight, biases.get(), x.span(), chosen.span(), out.span()}); });
  CHECK_MESSAGE(compare_bits(x.read<float>(), r.x) == "", who, ": the input was changed");
  return out.result(who);
}

/// What linear makes of all inputs with one expert's matrix, in a call of its own.
std::vector<float> run_expert(TestDevice& device, const RoutedInputs& r, uint32_t expert, const std::string& who) {
  const uint64_t bytes = r.weight.bytes.size() / r.experts;
  const auto* from = r.weight.bytes.data() + expert * bytes;
  const WeightData data{r.weight.type, r.out, r.in, {from, from + bytes}};
  const auto weight = prepare(*device, data, WeightUse::linear);
  const WeightData row = r.biases.rows == 0 ? WeightData{} : weight_from(r.biases.row(expert), 1, r.out);
  const auto bias = r.biases.rows == 0 ? nullptr : prepare(*device, row, WeightUse::table);
  const uint32_t n = r.rows * r.in_parts;
  const Guarded x(*device, r.x), out(*device, uint64_t{n} * r.out * 4);
  LinearArgs args;
  args.in = x.span();
  args.outputs.push_back({{n, r.in, r.out}, weight.get(), bias.get(), out.span()});
  device.step(plain_shape(n, r.in), who, [&] { device->linear(args); });
  return out.result(who);
}

/// Empty, or where two orders of summation can't have made the difference.
std::string compare_orders(const RoutedInputs& r, const std::vector<float>& found, const std::vector<float>& expected) {
  std::vector<std::vector<float>> w(uint64_t{r.experts} * r.out);
  for (uint64_t o = 0; o < w.size(); ++o) w[o] = r.weight.row_magnitudes(o);
  return compare(found, expected, [&](size_t at) {
    const uint64_t part = at / r.out, row = static_cast<uint64_t>(r.chosen[part]) * r.out + at % r.out;
    const float* x = &r.x[(r.in_parts == 1 ? part / r.used : part) * r.in];
    double terms = r.biases.rows == 0 ? 0 : std::fabs(r.biases.row(row / r.out)[at % r.out]);
    for (uint32_t k = 0; k < r.in; ++k) terms += std::fabs(static_cast<double>(x[k])) * w[row][k];
    return 2 * roundings(2.0 * r.in) * kUnit * terms + 1e-38;
  });
}

}  // namespace

TEST_CASE(
    "linear_routed: each expert's result is linear's with its matrix, and has the same bits whoever is beside it") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name), three(name, 3);
    for (const cases::Case& one : cases_of("linear_routed", *device)) {
      const RoutedInputs r = routed_inputs(one);
      const std::string who = name + ", " + one.text;
      const std::vector<float> found = run_routed(device, r, who);
      std::vector<std::vector<float>> by_expert;
      for (uint32_t e = 0; e < r.experts; ++e) by_expert.push_back(run_expert(device, r, e, who));
      std::vector<float> expected;
      for (uint64_t part = 0; part < r.chosen.size(); ++part) {
        const std::vector<float>& of = by_expert[static_cast<size_t>(r.chosen[part])];
        const std::vector<float> row = rows_of(of, r.out, r.in_parts == 1 ? part / r.used : part, 1);
        expected.insert(expected.end(), row.begin(), row.end());
      }
      const bool gpu = device->info().gpu;
      std::string off = gpu ? compare_orders(r, found, expected) : compare_bits(found, expected);
      CHECK_MESSAGE(off == "", who, ": ", off);
      expected = found;
      off = compare_bits(run_routed(three, r, who), expected);
      CHECK_MESSAGE(off == "", who, ": with 3 threads: ", off);
      RoutedInputs last = r;  // the last row alone
      last.rows = 1;
      last.x = rows_of(r.x, uint64_t{r.in} * r.in_parts, r.rows - 1, 1);
      last.chosen.assign(r.chosen.end() - r.used, r.chosen.end());
      const std::vector<float> alone = run_routed(device, last, who);
      expected = rows_of(expected, uint64_t{r.used} * r.out, r.rows - 1, 1);
      const bool tiles = r.experts == 1 && r.rows >= device->info().tile_rows;  // a linear layer, with its promise
      off = tiles ? compare_orders(last, alone, expected) : compare_bits(alone, expected);
      CHECK_MESSAGE(off == "", who, ": the last row alone: ", off);
    }
  }
}

TEST_CASE("linear_routed: the same bits whatever experts are packed at once, and whichever were before") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name, 3);
    if (device->info().gpu) continue;  // experts are packed on the host alone
    for (const cases::Case& one : cases_of("linear_routed", *device)) {
      RoutedInputs r = routed_inputs(one);
      const uint64_t wide = uint64_t{r.used} * r.out;
      const std::vector<float> expected = run_routed(device, r, one.text);
      const uint64_t all = device->prepared_bytes(r.weight.view(), WeightUse::linear);
      for (const uint64_t kept : {uint64_t{1}, uint64_t{r.experts + 1} / 2}) {
        r.weight.kept = kept;
        const auto weight = prepare(*device, r.weight, WeightUse::linear);
        if (name == "cpu") CHECK(weight->private_bytes == all / r.experts * kept);
        for (const uint32_t row : {0u, r.rows - 1, r.rows, 0u, r.rows, r.rows / 2}) {  // one alone, or all
          RoutedInputs some = r;
          const uint32_t first = row == r.rows ? 0 : row, n = row == r.rows ? r.rows : 1;
          some.rows = n;
          some.x = rows_of(r.x, uint64_t{r.in} * r.in_parts, first, n);
          some.chosen.assign(r.chosen.begin() + first * r.used, r.chosen.begin() + (first + n) * r.used);
          const std::string off =
              compare_bits(run_routed(device, some, one.text, weight.get()), rows_of(expected, wide, first, n));
          CHECK_MESSAGE(off == "", name, ", ", one.text, ", ", kept, " kept, row ", row, ": ", off);
        }
      }
    }
  }
}

TEST_CASE("linear_routed: an expert that no row chose says nothing, whatever it holds") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name);
    for (const cases::Case& one : cases_of("linear_routed", *device)) {
      RoutedInputs r = routed_inputs(one);
      if (r.weight.type != DType::f32 || r.experts == r.used) continue;
      const std::vector<float> expected = run_routed(device, r, one.text);
      std::fill(r.weight.bytes.end() - static_cast<int64_t>(r.weight.bytes.size() / r.experts), r.weight.bytes.end(),
                kPoison);
      const std::string off = compare_bits(run_routed(device, r, one.text), expected);
      CHECK_MESSAGE(off == "", name, ", ", one.text, ": ", off);
    }
  }
}

TEST_CASE("linear_routed: a value that is not finite spoils what its own row makes, and nothing else") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name);
    for (const cases::Case& one : cases_of("linear_routed", *device)) {
      RoutedInputs r = routed_inputs(one);
      if (r.rows != 3) continue;
      const uint64_t wide = uint64_t{r.used} * r.out;
      const std::vector<float> clean = run_routed(device, r, one.text);
      r.x[uint64_t{r.in} * r.in_parts * 2 - 1] = NAN;  // the last of row 1, of its last part
      const std::vector<float> found = run_routed(device, r, one.text);
      for (const uint64_t row : {0, 2})
        CHECK(compare_bits(rows_of(found, wide, row, 1), rows_of(clean, wide, row, 1)) == "");
      for (uint32_t part = 0; part < r.used; ++part) {
        const std::vector<float> made = rows_of(found, r.out, r.used + part, 1);
        const bool spoilt = r.in_parts == 1 || part == r.used - 1;
        CHECK(std::all_of(made.begin(), made.end(), [&](float y) { return std::isnan(y) == spoilt; }));
      }
    }
  }
}

TEST_CASE("sum_routed agrees with a sum in double, with the same bits for a row alone") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name, 2);
    for (const cases::Case& one : cases_of("sum_routed")) {
      const SumRoutedParams p{one.number("rows"), one.number("used"), one.number("width")};
      Random random(one.seed());
      const std::vector<float> in = random_floats(random, uint64_t{p.n_rows} * p.n_used * p.width);
      const std::vector<float> weights = random_floats(random, uint64_t{p.n_rows} * p.n_used);
      const auto run = [&](uint32_t begin, uint32_t n) {
        const Guarded x(*device, rows_of(in, uint64_t{p.n_used} * p.width, begin, n));
        const Guarded w(*device, rows_of(weights, p.n_used, begin, n)), out(*device, uint64_t{n} * p.width * 4);
        device.step(plain_shape(n, p.width), one.text,
                    [&] { device->sum_routed({{n, p.n_used, p.width}, x.span(), w.span(), out.span()}); });
        return out.result(one.text);
      };
      std::vector<float> expected;
      std::vector<double> sizes;
      for (uint64_t r = 0; r < p.n_rows; ++r)
        for (uint64_t i = 0; i < p.width; ++i) {
          double sum = 0, size = 0;
          for (uint64_t part = r * p.n_used; part < (r + 1) * p.n_used; ++part) {
            const double term = static_cast<double>(weights[part]) * in[part * p.width + i];
            sum += term, size += std::fabs(term);
          }
          expected.push_back(static_cast<float>(sum)), sizes.push_back(size);
        }
      const std::vector<float> found = run(0, p.n_rows);
      const std::string off =
          compare(found, expected, [&](size_t at) { return 2.0 * p.n_used * kUnit * sizes[at] + 1e-38; });
      CHECK_MESSAGE(off == "", name, ", ", one.text, ": ", off);
      CHECK(compare_bits(run(p.n_rows - 1, 1), rows_of(found, p.width, p.n_rows - 1, 1)) == "");
    }
  }
}

}  // namespace foundry::kernel_tests
