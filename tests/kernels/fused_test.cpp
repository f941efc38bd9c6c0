// linear with the norm before it and the gate behind it, on devices that fuse them, against the reference's ops one
// after another.
#include <doctest/doctest.h>

#include "kernels/support.h"

namespace foundry::kernel_tests {
namespace {

struct Fused {
  uint32_t rows, in, out;
  bool norm;
  LinearArgs::Gate gate;
  std::vector<float> x;
  WeightData scale;
  std::vector<WeightData> weights;  // two with a gate, else three siblings
};

Fused inputs_of(const cases::Case& one) {
  Random random(one.seed());
  Fused f{one.number("rows"),
          one.number("in"),
          one.number("out"),
          one.number("norm") != 0,
          static_cast<LinearArgs::Gate>(one.number("gate")),
          {},
          {},
          {}};
  f.x = random_floats(random, uint64_t{f.rows} * f.in);
  f.scale = weight_from(random_floats(random, f.in), 1, f.in);
  for (int i = 0; i < (f.gate == LinearArgs::Gate::none ? 3 : 2); ++i)
    f.weights.push_back(random_weight(random, one.type(i == 1 && one.has("up") ? "up" : "type"), f.out, f.in));
  return f;
}

std::vector<std::vector<float>> run(TestDevice& device, const Fused& f, const std::string& who) {
  const auto scale = prepare(*device, f.scale, WeightUse::table);
  const Guarded x(*device, f.x), normed(*device, f.x.size() * sizeof(float));
  const bool gated = f.gate != LinearArgs::Gate::none, one_call = device->info().fuses;
  const uint64_t bytes = uint64_t{f.rows} * f.out * sizeof(float);
  const Guarded y(*device, bytes);
  const RmsNormParams p{f.rows, f.in, 1e-5f};
  std::vector<std::unique_ptr<Weight>> weights;
  std::vector<Guarded> out;
  LinearArgs args;
  args.in = f.norm ? normed.span() : x.span();
  for (const WeightData& data : f.weights) {
    weights.push_back(prepare(*device, data, WeightUse::linear));
    out.emplace_back(*device, bytes);
    const LinearParams linear{f.rows, f.in, f.out};
    args.outputs.push_back({linear, weights.back().get(), nullptr, out.back().span()});
  }
  if (one_call && f.norm) args.norm = {scale.get(), p, x.span()};
  if (one_call && gated) args.gate = f.gate, args.gated = y.span();
  device.step(plain_shape(f.rows, f.in), who, [&] {
    if (!one_call && f.norm) device->rms_norm({p, scale.get(), x.span(), normed.span()});
    device->linear(args);
    const GatedArgs gate{f.rows, f.out, out[0].span(), out[1].span(), y.span()};
    if (!one_call && f.gate == LinearArgs::Gate::swiglu) device->swiglu(gate);
    if (!one_call && f.gate == LinearArgs::Gate::geglu) device->geglu(gate);
  });
  std::vector<std::vector<float>> results;
  if (gated) results.push_back(y.result(who));
  for (const Guarded& one : out) {
    CHECK_MESSAGE(one.guards_intact(), who, ": a byte outside the room was written");
    if (!gated) results.push_back(one.result(who));
  }
  CHECK_MESSAGE(compare_bits(x.read<float>(), f.x) == "", who, ": the input was changed");
  return results;
}

}  // namespace

TEST_CASE("linear with norm and gate agrees with the ops one after another") {
  TestDevice truth("reference");
  for (const cases::Case& one : cases_of("fused")) {
    const Fused f = inputs_of(one);
    const auto expected = run(truth, f, one.text);
    for (const std::string& name : other_devices()) {
      TestDevice device(name);
      if (!device->info().fuses || !readable(one, *device)) continue;
      const std::string who = name + ", " + one.text;
      const auto found = run(device, f, who);
      for (size_t i = 0; i < found.size(); ++i) {
        float most = 0;
        for (const float value : expected[i]) most = std::max(most, std::fabs(value));
        const std::string off = compare(found[i], expected[i], [&](size_t at) {
          return 4 * roundings(2.0 * f.in) * kUnit * (most + std::fabs(expected[i][at]));
        });
        CHECK_MESSAGE(off == "", who, ": output ", i, ", ", off);
      }
    }
  }
}

}  // namespace foundry::kernel_tests
