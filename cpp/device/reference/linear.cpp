// y = x W^T + bias + residual: f32 activations against dequantised weights, products summed in double.
#include <vector>

#include "device/reference/ops.h"
#include "formats/block_formats.h"

namespace foundry::reference {
namespace {

/// Eight interleaved sums, so that a compiler can keep them in one register; the order is fixed.
double dot(const float* a, const float* b, u32 n) {
  double sums[8] = {};
  u32 k = 0;
  for (; k + 8 <= n; k += 8)
    for (u32 i = 0; i < 8; ++i) sums[i] += static_cast<double>(a[k + i]) * b[k + i];
  double total = 0;
  for (; k < n; ++k) total += static_cast<double>(a[k]) * b[k];
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

void linear(const LinearArgs& args) {
  for (const LinearArgs::Output& output : args.outputs) {
    const LinearParams& p = output.p;
    const uint64_t row_stride = row_bytes(output.weight->type, p.in_features);
    const auto* bias = output.bias == nullptr ? nullptr : reinterpret_cast<const float*>(output.bias->mapped);
    const auto* residual = args.residual.as<float>();
    std::vector<float> weights(p.in_features);
    for (u32 o = 0; o < p.out_features; ++o) {
      dequantise_row(output.weight->type, output.weight->mapped + o * row_stride, weights.data(), p.in_features);
      for (u32 r = 0; r < p.n_rows; ++r) {
        double y = dot(args.in.as<float>() + u64{r} * p.in_features, weights.data(), p.in_features);
        const u64 at = u64{r} * p.out_features + o;
        if (bias != nullptr) y += bias[o];
        const auto rounded = static_cast<float>(y);  // as without a residual: fusing an add changes no bit
        output.out.as<float>()[at] = residual == nullptr ? rounded : rounded + residual[at];
      }
    }
  }
}

}  // namespace foundry::reference
