// embed, norms, rope, gates, gelu, add, scale, resize_heads and select_rows: every device against the reference, a
// row's bits on the row alone.
#include <doctest/doctest.h>

#include <limits>

#include "kernels/support.h"

namespace foundry::kernel_tests {
namespace {

/// One op with its inputs: runs rows begin .. begin + n on a device. Made for each case, then run many ways.
struct Elementwise {
  uint32_t rows;
  uint64_t width;  // of a row of the output
  std::function<std::vector<float>(TestDevice&, uint32_t begin, uint32_t n)> run;
  std::function<double(size_t at, float expected)> bound;  // 0: the very bits
};
using Make = std::function<Elementwise(const cases::Case&)>;

void check_all(const std::string& op, const Make& make) {
  TestDevice reference("reference");
  for (const std::string& name : all_devices()) {
    TestDevice device(name), threaded(name, 3);
    for (const cases::Case& one : cases_of(op, *device)) {
      const std::string who = name + ", " + one.text;
      const Elementwise e = make(one);
      const std::vector<float> expected = e.run(reference, 0, e.rows), found = e.run(device, 0, e.rows);
      std::string off = compare(found, expected, [&](size_t at) { return e.bound(at, expected[at]); });
      CHECK_MESSAGE(off == "", who, ": ", off);
      off = compare_bits(e.run(threaded, 0, e.rows), found);
      CHECK_MESSAGE(off == "", who, ": with three threads: ", off);
      for (uint32_t r = 0; e.rows > 1 && r < e.rows; ++r) {
        off = compare_bits(e.run(device, r, 1), rows_of(found, e.width, r, 1));
        REQUIRE_MESSAGE(off == "", who, ": row ", r, " alone: ", off);
      }
    }
  }
}

double no_difference(size_t, float) { return 0; }

/// swiglu, geglu
Elementwise gated(const cases::Case& one, void (Device::*op)(const GatedArgs&)) {
  Random random(one.seed());
  const uint32_t rows = one.number("rows"), width = one.number("width");
  auto gate = activations(random, uint64_t{rows} * width);
  const auto up = activations(random, uint64_t{rows} * width);
  gate[0] = -200;  // far out on both sides, where exp ends
  gate.back() = 200;
  const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
    const Guarded a(*device, rows_of(gate, width, begin, n)), b(*device, rows_of(up, width, begin, n));
    const Guarded out(*device, uint64_t{n} * width * sizeof(float));
    device.step(plain_shape(n, width), text,
                [&] { (device.operator->()->*op)({n, width, a.span(), b.span(), out.span()}); });
    return out.result(text);
  };
  // exp to 2e-7, a sum, a division, two products; exp ends at e^-87.3, so tiny results end near 1e-34. What geglu takes
  // the exponential of has four roundings, and e^u is off by as much as u is.
  const auto exponent = [gate](size_t at) {
    return std::min(100.0, std::fabs(1.6 * gate[at] * (1 + 0.045 * gate[at] * gate[at])));
  };
  return Elementwise{rows, width, run, [=](size_t at, float expected) {
                       return (5e-7 + 4 * kUnit * exponent(at)) * std::fabs(expected) + 1e-33;
                     }};
}

}  // namespace

TEST_CASE("embed agrees with the reference") {
  check_all("embed", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), width = one.number("width"), vocab = one.number("vocab");
    const float scale = one.has("scale") ? one.real("scale") : 1;
    const auto table = std::make_shared<WeightData>(random_weight(random, one.type("type"), vocab, width));
    std::vector<int32_t> tokens(rows);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(vocab));
    tokens[0] = static_cast<int32_t>(vocab - 1);  // the last row ends where the tensor ends
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const auto weight = prepare(*device, *table, WeightUse::table);
      const Guarded ids(*device, std::vector<int32_t>(tokens.begin() + begin, tokens.begin() + begin + n));
      const Guarded out(*device, uint64_t{n} * width * sizeof(float));
      device.step(plain_shape(n, width), text,
                  [&] { device->embed({{n, width, scale}, weight.get(), ids.span(), out.span()}); });
      return out.result(text);
    };
    return Elementwise{rows, width, run, no_difference};
  });
}

TEST_CASE("rms_norm agrees with the reference") {
  check_all("rms_norm", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), width = one.number("width");
    const float eps = one.real("eps");
    const auto x = activations(random, uint64_t{rows} * width);
    const auto weight_data = std::make_shared<WeightData>(weight_from(random_floats(random, width), 1, width));
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const auto weight = prepare(*device, *weight_data, WeightUse::table);
      const Guarded in(*device, rows_of(x, width, begin, n)), out(*device, uint64_t{n} * width * sizeof(float));
      device.step(plain_shape(n, width), text,
                  [&] { device->rms_norm({{n, width, eps}, weight.get(), in.span(), out.span()}); });
      return out.result(text);
    };
    // The mean's roundings count half, for its root is taken; then a root, a division and two products.
    const double relative = (roundings(width) / 2 + 5) * kUnit;
    return Elementwise{rows, width, run,
                       [=](size_t, float expected) { return relative * std::fabs(expected) + 1e-38; }};
  });
}

TEST_CASE("rope agrees with the reference") {
  check_all("rope", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), heads = one.number("heads"), head_dim = one.number("head_dim");
    const uint32_t rot_dim = one.number("rot_dim", head_dim), start = one.number("start", 0);
    const uint32_t width = heads * head_dim;
    const auto x = random_floats(random, uint64_t{rows} * width);
    std::shared_ptr<WeightData> factors;
    if (one.number("factors", 0) != 0) {
      std::vector<float> values = random_floats(random, rot_dim / 2);
      for (float& value : values) value = 4.5f + 3.5f * value;
      factors = std::make_shared<WeightData>(weight_from(values, 1, rot_dim / 2));
    }
    RopeParams p{};
    p.n_heads = heads, p.head_dim = head_dim, p.rot_dim = rot_dim, p.style = one.number("style");
    p.base = one.real("base");
    p.scale = one.has("scale") ? one.real("scale") : 1;
    p.magnitude = one.has("magnitude") ? one.real("magnitude") : 1;
    p.temperature = one.has("temperature") ? one.real("temperature") : 0;
    p.temperature_length = one.number("temperature_length", 0);
    const double most = p.magnitude * (1 + p.temperature * 20.0);  // log of a position stays below 20
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      std::vector<int32_t> positions(n);
      for (uint32_t r = 0; r < n; ++r) positions[r] = static_cast<int32_t>(start + 3 * (begin + r));
      const auto weight = factors == nullptr ? nullptr : prepare(*device, *factors, WeightUse::table);
      const Guarded at(*device, positions), in(*device, rows_of(x, width, begin, n));
      const Guarded out(*device, uint64_t{n} * width * sizeof(float));
      RopeParams params = p;
      params.n_rows = n;
      StepShape shape = plain_shape(n, width);
      shape.n_heads = heads, shape.head_dim = head_dim;
      device.step(shape, text, [&] {
        device->rope({params, weight.get(), at.span(), in.span(), out.span()});
        device->rope({params, weight.get(), at.span(), in.span(), in.span()});  // in place gives the same
      });
      const auto apart = out.result(text), in_place = in.result(text);
      CHECK_MESSAGE(compare_bits(in_place, apart) == "", text, ": in place");
      return apart;
    };
    // Of a pair of values up to 1: two products and a sum, and cosines rounded to f32.
    return Elementwise{rows, width, run, [most](size_t, float) { return most * 2 * 5 * kUnit; }};
  });
}

TEST_CASE("swiglu and geglu agree with the reference") {
  check_all("swiglu", [](const cases::Case& one) { return gated(one, &Device::swiglu); });
  check_all("geglu", [](const cases::Case& one) { return gated(one, &Device::geglu); });
}

TEST_CASE("sigmoid_gate agrees with the reference, and shows a gate that is no number") {
  check_all("sigmoid_gate", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), heads = one.number("heads"), width = one.number("width");
    const uint32_t of_head = one.number("gate") == 0 ? 1 : one.number("gate") * width;
    const auto x = activations(random, uint64_t{rows} * heads * width);
    auto gate = activations(random, uint64_t{rows} * heads * of_head);
    gate[0] = -200;  // far out on both sides, where exp ends
    gate.back() = 200;
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const Guarded in(*device, rows_of(x, uint64_t{heads} * width, begin, n));
      const Guarded by(*device, rows_of(gate, uint64_t{heads} * of_head, begin, n));
      const Guarded out(*device, uint64_t{n} * heads * width * sizeof(float));
      device.step(plain_shape(n, heads * width), text,
                  [&] { device->sigmoid_gate({{n, heads, width, of_head}, in.span(), by.span(), out.span()}); });
      return out.result(text);
    };
    return Elementwise{rows, uint64_t{heads} * width, run,
                       [](size_t, float expected) { return 5e-7 * std::fabs(expected) + 1e-33; }};
  });
  for (const std::string& name : all_devices()) {
    TestDevice device(name);
    const float most = std::numeric_limits<float>::infinity();
    const Guarded in(*device, std::vector<float>{1, 2, 3, 4});
    const Guarded by(*device, std::vector<float>{NAN, 0, -most, 1});
    const Guarded out(*device, 4 * sizeof(float));
    device.step(plain_shape(1, 4), name,
                [&] { device->sigmoid_gate({{1, 1, 4, 4}, in.span(), by.span(), out.span()}); });
    const std::vector<float> found = out.result(name);
    CHECK(std::isnan(found[0]));
    CHECK(found[1] == 1.0f);
    CHECK((std::isnan(found[2]) || found[2] == 0));
  }
}

TEST_CASE("swiglu_clamped agrees with the reference, and is what it says") {
  check_all("swiglu_clamped", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), width = one.number("width");
    const float alpha = one.real("alpha"), limit = one.real("limit");
    auto gate = activations(random, uint64_t{rows} * width), up = activations(random, uint64_t{rows} * width);
    gate[0] = -200, gate.back() = 200, up[0] = -200, up.back() = 200;
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const Guarded a(*device, rows_of(gate, width, begin, n)), b(*device, rows_of(up, width, begin, n));
      const Guarded out(*device, uint64_t{n} * width * sizeof(float));
      device.step(plain_shape(n, width), text,
                  [&] { device->swiglu_clamped({n, width, alpha, limit, a.span(), b.span(), out.span()}); });
      return out.result(text);
    };
    return Elementwise{rows, width, run, [=](size_t at, float expected) {
                         const double exponent = std::min(100.0, std::fabs(static_cast<double>(alpha) * gate[at]));
                         return (8e-7 + 4 * kUnit * exponent) * std::fabs(expected) + 1e-33;
                       }};
  });
  TestDevice reference("reference");
  const Guarded gate(*reference, std::vector<float>{1, 9, -1, 0}), up(*reference, std::vector<float>{1, 9, -9, 3});
  const Guarded out(*reference, 4 * sizeof(float));
  reference.step(plain_shape(1, 4), "by hand",
                 [&] { reference->swiglu_clamped({1, 4, 2, 7, gate.span(), up.span(), out.span()}); });
  const std::vector<float> found = out.result("by hand");
  const double expected[] = {2 / (1 + std::exp(-2.0)), 56 / (1 + std::exp(-14.0)), 6 / (1 + std::exp(2.0))};
  for (size_t i = 0; i < 3; ++i) CHECK(std::fabs(found[i] - expected[i]) <= 1e-6 * expected[i]);
  CHECK(found[3] == 0);
}

TEST_CASE("add agrees with the reference") {
  check_all("add", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), width = one.number("width");
    const auto x = activations(random, uint64_t{rows} * width), y = activations(random, uint64_t{rows} * width);
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const Guarded a(*device, rows_of(x, width, begin, n)), b(*device, rows_of(y, width, begin, n));
      const Guarded out(*device, uint64_t{n} * width * sizeof(float));
      device.step(plain_shape(n, width), text, [&] { device->add({n, width, a.span(), b.span(), out.span()}); });
      return out.result(text);
    };
    return Elementwise{rows, width, run, no_difference};
  });
}

TEST_CASE("layer_norm agrees with the reference") {
  check_all("layer_norm", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), width = one.number("width");
    const float eps = one.real("eps");
    auto x = activations(random, uint64_t{rows} * width);
    for (float& value : x) value += 3;  // a mean that is not 0
    const auto weight_data = std::make_shared<WeightData>(weight_from(random_floats(random, width), 1, width));
    const auto bias_data = std::make_shared<WeightData>(weight_from(random_floats(random, width), 1, width));
    const bool has_bias = one.number("bias") != 0;
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const auto weight = prepare(*device, *weight_data, WeightUse::table);
      const auto bias = has_bias ? prepare(*device, *bias_data, WeightUse::table) : nullptr;
      const Guarded in(*device, rows_of(x, width, begin, n)), out(*device, uint64_t{n} * width * sizeof(float));
      device.step(plain_shape(n, width), text, [&] {
        device->layer_norm({{n, width, eps, has_bias ? 1u : 0u}, weight.get(), bias.get(), in.span(), out.span()});
      });
      return out.result(text);
    };
    // What is left of a value without the mean is off by as much as the larger of both is, over the deviation.
    double largest = 3, squares = 0;
    for (const float value : x) largest = std::max(largest, std::fabs(static_cast<double>(value)));
    for (uint32_t r = 0; r < rows; ++r) {
      double mean = 0, of_row = 0;
      for (uint32_t i = 0; i < width; ++i) mean += x[r * width + i] / width;
      for (uint32_t i = 0; i < width; ++i) of_row += (x[r * width + i] - mean) * (x[r * width + i] - mean) / width;
      squares = r == 0 ? of_row : std::min(squares, of_row);
    }
    const double off = 4 * roundings(width) * kUnit * largest / std::sqrt(squares + static_cast<double>(eps));
    return Elementwise{rows, width, run, [=](size_t, float expected) {
                         return off + roundings(width) * kUnit * std::fabs(expected) + 1e-38;
                       }};
  });
}

TEST_CASE("gelu agrees with the reference") {
  check_all("gelu", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), width = one.number("width");
    auto x = activations(random, uint64_t{rows} * width);
    x[0] = -200, x.back() = 200;
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const Guarded in(*device, rows_of(x, width, begin, n)), out(*device, uint64_t{n} * width * sizeof(float));
      device.step(plain_shape(n, width), text, [&] { device->gelu({n, width, in.span(), out.span()}); });
      return out.result(text);
    };
    const auto exponent = [x](size_t at) {
      return std::min(100.0, std::fabs(1.6 * x[at] * (1 + 0.045 * x[at] * x[at])));
    };
    return Elementwise{rows, width, run, [=](size_t at, float expected) {
                         return (5e-7 + 4 * kUnit * exponent(at)) * std::fabs(expected) + 1e-33;
                       }};
  });
}

TEST_CASE("scale agrees with the reference, and hides nothing below its cap") {
  check_all("scale", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), width = one.number("width");
    const float scale = one.real("scale"), cap = one.real("cap");
    auto x = activations(random, uint64_t{rows} * width);
    x[0] = -1e4f, x.back() = 1e30f;
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const Guarded in(*device, rows_of(x, width, begin, n)), out(*device, uint64_t{n} * width * sizeof(float));
      device.step(plain_shape(n, width), text,
                  [&] { device->scale({{uint64_t{n} * width, scale, cap}, in.span(), out.span()}); });
      return out.result(text);
    };
    // A quotient of polynomials, good to some units in the last place of the result.
    return Elementwise{rows, width, run,
                       [=](size_t, float expected) { return cap == 0 ? 0 : 10 * kUnit * std::fabs(expected); }};
  });
  for (const std::string& name : all_devices()) {
    TestDevice device(name);
    const float infinity = std::numeric_limits<float>::infinity();
    const Guarded in(*device, std::vector<float>{NAN, infinity, -infinity, 1}), out(*device, 4 * sizeof(float));
    device.step(plain_shape(1, 4), name, [&] { device->scale({{4, 1, 30}, in.span(), out.span()}); });
    const std::vector<float> found = out.result(name);
    CHECK_MESSAGE((std::isnan(found[0]) && std::isnan(found[1]) && std::isnan(found[2])), name);
    CHECK_MESSAGE(std::fabs(found[3] - 30 * std::tanh(1 / 30.0)) < 1e-6, name);
  }
}

TEST_CASE("resize_heads agrees with the reference") {
  check_all("resize_heads", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), heads = one.number("heads");
    const uint32_t from = one.number("from"), to = one.number("to"), width = heads * to;
    const auto x = random_floats(random, uint64_t{rows} * heads * from);
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const Guarded in(*device, rows_of(x, heads * from, begin, n));
      const Guarded out(*device, uint64_t{n} * width * sizeof(float));
      device.step(plain_shape(n, width), text,
                  [&] { device->resize_heads({{uint64_t{n} * width, from, to}, in.span(), out.span()}); });
      return out.result(text);
    };
    return Elementwise{rows, width, run, no_difference};
  });
}

TEST_CASE("select_rows agrees with the reference") {
  check_all("select_rows", [](const cases::Case& one) {
    Random random(one.seed());
    const uint32_t rows = one.number("rows"), width = one.number("width"), selected = one.number("selected");
    const auto x = random_floats(random, uint64_t{rows} * width);
    std::vector<int32_t> which(selected);
    for (int32_t& row : which) row = static_cast<int32_t>(random.below(rows));
    which.back() = static_cast<int32_t>(rows - 1);
    const auto run = [=, text = one.text](TestDevice& device, uint32_t begin, uint32_t n) {
      const Guarded at(*device, std::vector<int32_t>(which.begin() + begin, which.begin() + begin + n));
      const Guarded in(*device, x), out(*device, uint64_t{n} * width * sizeof(float));
      device.step(plain_shape(n, width), text,
                  [&] { device->select_rows({n, width, at.span(), in.span(), out.span()}); });
      return out.result(text);
    };
    return Elementwise{selected, width, run, no_difference};
  });
}

}  // namespace foundry::kernel_tests
