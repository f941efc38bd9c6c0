// linear on every device against the reference, and the promise that a row's bits depend on the row alone (with
// tile_rows: and on whether it has so many mates).
//
// A device may round the activations of a quantised weight to 15 bits in blocks of 32, so two sorts of input are used:
//   exact    activations which that quantisation holds without error: only roundings of the sum may differ
//   general  |x - scale q| <= scale / 2 with scale = max|x| / 16256, so a block may be off by sum|w| * scale / 2 at the most
#include <doctest/doctest.h>

#include <bit>

#include "kernels/linear_run.h"

namespace foundry::kernel_tests {
namespace {

/// How far y[row, output] may be off: sums of roundings and, where asked, the quantisation of x.
double linear_bound(const LinearInputs& inputs, size_t index, const std::vector<float>& w, uint32_t row, uint64_t o,
                    float y, bool quantises) {
  const float* x = inputs.x.data() + uint64_t{row} * inputs.in;
  double terms = 0, quantisation = 0;
  for (uint32_t k = 0; k < inputs.in; ++k) terms += std::fabs(static_cast<double>(x[k])) * w[k];
  for (uint32_t b = 0; quantises && b < inputs.in; b += 32) {
    double most = 0, weights = 0;
    for (uint32_t k = b; k < b + 32; ++k) {
      most = std::max(most, std::fabs(static_cast<double>(x[k])));
      weights += w[k];
    }
    // 0.5 plus what the roundings of 16256 / max and of the product with it can move: 16256 * 2^-22.
    quantisation += weights * most / 16256 * (0.5 + 16256 * 0x1p-22);
  }
  // A block counts as two roundings at the least, and so does a plain product.
  double epilogue = std::fabs(y);
  if (!inputs.biases.empty()) epilogue += std::fabs(inputs.biases[index].row(0)[o]);
  if (!inputs.residual.empty()) epilogue += std::fabs(inputs.residual[uint64_t{row} * inputs.weights[index].rows + o]);
  return quantisation + roundings(2.0 * inputs.in) * kUnit * (terms + quantisation) + 3 * kUnit * epilogue + 1e-38;
}

std::string compare_linear(const LinearInputs& inputs, const std::vector<std::vector<float>>& found,
                           const std::vector<std::vector<float>>& expected, bool exact, double bounds = 1) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const uint64_t out = inputs.weights[i].rows;
    std::vector<std::vector<float>> w(out);
    for (uint64_t o = 0; o < out; ++o) w[o] = inputs.weights[i].row_magnitudes(o);
    const bool quantises = !exact && block_elements(inputs.weights[i].type) > 1;
    const std::string off = compare(found[i], expected[i], [&](size_t at) {
      return bounds * linear_bound(inputs, i, w[at % out], static_cast<uint32_t>(at / out), at % out, expected[i][at],
                                   quantises);
    });
    if (!off.empty()) return "output " + std::to_string(i) + ", " + off;
  }
  return "";
}

std::string compare_all_bits(const std::vector<std::vector<float>>& found,
                             const std::vector<std::vector<float>>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const std::string off = compare_bits(found[i], expected[i]);
    if (!off.empty()) return "output " + std::to_string(i) + ", " + off;
  }
  return "";
}

TEST_CASE("linear agrees with the reference") {
  TestDevice reference("reference");
  for (const std::string& name : other_devices()) {
    TestDevice device(name, 2);
    for (const cases::Case& one : cases_of("linear", *device))
      for (const bool exact : {true, false}) {
        const LinearInputs inputs = linear_inputs(one, exact);
        if (exact && !inputs.quantised()) continue;
        const std::string who = name + ", " + one.text + (exact ? ", exact activations" : "");
        const auto expected = LinearRun(reference, inputs, who).rows(0, inputs.rows);
        const auto found = LinearRun(device, inputs, who).rows(0, inputs.rows);
        const std::string off = compare_linear(inputs, found, expected, exact);
        CHECK_MESSAGE(off == "", who, ": ", off);
      }
  }
}

TEST_CASE("linear: a row's bits do not depend on its batch-mates, its siblings, the residual's place or the threads") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name);
    TestDevice two(name, 2), three(name, 3);
    for (const cases::Case& one : cases_of("linear", *device)) {
      const LinearInputs inputs = linear_inputs(one, false);
      const std::string who = name + ", " + one.text;
      const LinearRun run(device, inputs, who);
      const auto all = run.rows(0, inputs.rows);
      std::vector<std::vector<float>> alone(all.size());
      for (uint32_t r = 0; r < inputs.rows; ++r) {
        const auto row = run.rows(r, 1);
        for (size_t i = 0; i < all.size(); ++i) alone[i].insert(alone[i].end(), row[i].begin(), row[i].end());
      }
      std::string off = inputs.rows >= device->info().tile_rows
                            ? compare_linear(inputs, alone, all, true, 2)  // each off by one bound
                            : compare_all_bits(alone, all);
      CHECK_MESSAGE(off == "", who, ": rows alone: ", off);
      if (inputs.rows > device->info().tile_rows) {
        const auto others = run.rows(1, inputs.rows - 1);
        for (size_t i = 0; i < all.size(); ++i) {
          off = compare_bits(others[i], rows_of(all[i], inputs.weights[i].rows, 1, inputs.rows - 1));
          CHECK_MESSAGE(off == "", who, ": without the first row, output ", i, ", ", off);
        }
      }
      off = compare_all_bits(run.one_by_one(), all);
      CHECK_MESSAGE(off == "", who, ": siblings apart: ", off);
      if (!inputs.residual.empty()) {
        off = compare_all_bits(run.rows(0, inputs.rows, true), all);
        CHECK_MESSAGE(off == "", who, ": residual in place: ", off);
      }
      for (TestDevice* other : {&two, &three}) {
        off = compare_all_bits(LinearRun(*other, inputs, who).rows(0, inputs.rows), all);
        CHECK_MESSAGE(off == "", who, ": with ", (*other)->info().threads, " threads: ", off);
      }
    }
  }
}

/// Rows of x, and of W where its type has the range, by far larger and smaller than f16 can be; and outliers among
/// their neighbours.
LinearInputs of_any_size(LinearInputs inputs) {
  const auto size = [](uint64_t row) { return std::ldexp(1.0f, 40 * (static_cast<int>(row % 3) - 1)); };
  for (uint64_t i = 0; i < inputs.x.size(); ++i) inputs.x[i] *= size(i / inputs.in) * (i % 29 == 0 ? 4096.0f : 1.0f);
  for (WeightData& data : inputs.weights) {
    if (data.type != DType::f32 && data.type != DType::bf16) continue;
    const uint64_t bytes = row_bytes(data.type, 1);
    for (uint64_t i = 0; i < data.rows * data.cols; ++i) {
      uint32_t bits = 0;  // bf16 is the high half of f32
      std::memcpy(reinterpret_cast<std::byte*>(&bits) + 4 - bytes, data.bytes.data() + i * bytes, bytes);
      bits = std::bit_cast<uint32_t>(std::bit_cast<float>(bits) * size(i / data.cols));
      std::memcpy(data.bytes.data() + i * bytes, reinterpret_cast<std::byte*>(&bits) + 4 - bytes, bytes);
    }
  }
  return inputs;
}

TEST_CASE("linear agrees with the reference whatever the size of x and W") {
  TestDevice reference("reference");
  for (const std::string& name : other_devices()) {
    TestDevice device(name, 2);
    for (const cases::Case& one : cases_of("linear", *device)) {
      const LinearInputs inputs = of_any_size(linear_inputs(one, false));
      const auto expected = LinearRun(reference, inputs, one.text).rows(0, inputs.rows);
      const auto found = LinearRun(device, inputs, one.text).rows(0, inputs.rows);
      const std::string off = compare_linear(inputs, found, expected, false);
      CHECK_MESSAGE(off == "", name, ", ", one.text, ": ", off);
    }
  }
}

TEST_CASE("linear: a value that is not finite spoils its own row, and all of it, and no other row") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name);
    for (const cases::Case& one : cases_of("linear", *device)) {
      LinearInputs inputs = linear_inputs(one, false);
      if (inputs.rows != 3 && inputs.rows != 17) continue;
      const auto clean = LinearRun(device, inputs, one.text).rows(0, inputs.rows);
      for (const float value : {HUGE_VALF, -HUGE_VALF, NAN}) {
        const std::string who = name + ", " + one.text + ", " + std::to_string(value);
        LinearInputs spoilt = inputs;
        spoilt.x[2 * uint64_t{inputs.in} - 1] = value;
        const auto found = LinearRun(device, spoilt, who).rows(0, inputs.rows);
        for (size_t i = 0; i < found.size(); ++i) {
          const uint64_t out = inputs.weights[i].rows;
          for (uint64_t row = 0; row < inputs.rows; ++row) {
            if (row == 1) continue;
            const std::string off = compare_bits(rows_of(found[i], out, row, 1), rows_of(clean[i], out, row, 1));
            CHECK_MESSAGE(off == "", who, ": row ", row, ": ", off);
          }
          const auto row = rows_of(found[i], out, 1, 1);
          CHECK_MESSAGE(std::none_of(row.begin(), row.end(), [](float y) { return std::isfinite(y); }), who);
        }
      }
    }
  }
}

}  // namespace
}  // namespace foundry::kernel_tests
