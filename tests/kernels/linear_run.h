// Runs one linear case on one device; made apart from the checks, which run it many ways.
#pragma once
#include "kernels/support.h"

namespace foundry::kernel_tests {

struct LinearInputs {
  uint32_t rows = 0;
  uint32_t in = 0;
  std::vector<WeightData> weights;
  std::vector<WeightData> biases;  // empty: none
  std::vector<float> x;            // [rows, in]
  std::vector<float> residual;     // [rows, out] of the one output; empty: none

  bool quantised() const { return block_elements(weights[0].type) > 1 || block_elements(weights.back().type) > 1; }
  StepShape shape() const { return plain_shape(rows, in); }
};

/// `exact`: activations that an int8 quantisation holds without error.
inline LinearInputs linear_inputs(const cases::Case& one, bool exact) {
  Random random(one.seed());
  LinearInputs inputs;
  inputs.rows = one.number("rows");
  inputs.in = one.number("in");
  const std::vector<uint32_t> out = one.numbers("out");
  const std::vector<DType> types = one.types("type");
  for (size_t i = 0; i < out.size(); ++i) {
    inputs.weights.push_back(random_weight(random, types[i % types.size()], out[i], inputs.in));
    if (one.number("bias", 0) != 0) inputs.biases.push_back(weight_from(random_floats(random, out[i]), 1, out[i]));
  }
  inputs.x = exact ? exact_activations(random, uint64_t{inputs.rows} * inputs.in)
                   : activations(random, uint64_t{inputs.rows} * inputs.in);
  if (one.number("residual", 0) != 0) inputs.residual = random_floats(random, uint64_t{inputs.rows} * out[0]);
  return inputs;
}

/// Weights prepared once, then run on any rows.
class LinearRun {
 public:
  LinearRun(TestDevice& device, const LinearInputs& inputs, std::string who)
      : device_(device), inputs_(inputs), who_(std::move(who)) {
    for (const WeightData& data : inputs.weights) weights_.push_back(prepare(*device, data, WeightUse::linear));
    for (const WeightData& data : inputs.biases) biases_.push_back(prepare(*device, data, WeightUse::table));
  }

  /// Rows begin .. begin + n of each output; the residual in a place of its own, or where the output goes.
  std::vector<std::vector<float>> rows(uint32_t begin, uint32_t n, bool residual_in_place = false) const {
    std::vector<size_t> which(weights_.size());
    for (size_t i = 0; i < which.size(); ++i) which[i] = i;
    return run(begin, n, which, residual_in_place);
  }
  /// All rows, each output in a call of its own.
  std::vector<std::vector<float>> one_by_one() const {
    std::vector<std::vector<float>> results;
    for (size_t i = 0; i < weights_.size(); ++i) results.push_back(run(0, inputs_.rows, {i}, false)[0]);
    return results;
  }

 private:
  std::vector<std::vector<float>> run(uint32_t begin, uint32_t n, const std::vector<size_t>& which,
                                      bool residual_in_place) const {
    const Guarded x(*device_, rows_of(inputs_.x, inputs_.in, begin, n));
    LinearArgs args;
    args.in = x.span();
    std::vector<Guarded> out;
    for (const size_t i : which) out.emplace_back(*device_, uint64_t{n} * inputs_.weights[i].rows * sizeof(float));
    std::vector<Guarded> residual;
    if (!inputs_.residual.empty()) {
      const std::vector<float> values = rows_of(inputs_.residual, inputs_.weights[0].rows, begin, n);
      residual.emplace_back(*device_, values);
      args.residual = residual_in_place ? out[0].span() : residual[0].span();
      if (residual_in_place) out[0].write(values);
    }
    for (size_t i = 0; i < which.size(); ++i) {
      const WeightData& data = inputs_.weights[which[i]];
      args.outputs.push_back({{n, inputs_.in, static_cast<u32>(data.rows)},
                              weights_[which[i]].get(),
                              biases_.empty() ? nullptr : biases_[which[i]].get(),
                              out[i].span()});
    }
    device_.step(inputs_.shape(), who_, [&] { device_->linear(args); });
    std::vector<std::vector<float>> results;
    for (const Guarded& one : out) results.push_back(one.result(who_));
    CHECK_MESSAGE(compare_bits(x.read<float>(), rows_of(inputs_.x, inputs_.in, begin, n)) == "", who_,
                  ": the input was changed");
    return results;
  }

  TestDevice& device_;
  const LinearInputs& inputs_;
  std::string who_;
  std::vector<std::unique_ptr<Weight>> weights_, biases_;
};

}  // namespace foundry::kernel_tests
