// y = x W^T + bias + residual: f32 activations against dequantised weights, products summed in double; likewise with
// a W of its own for each expert, and the weighted sum of what experts make of a row.
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

void linear_routed(const LinearRoutedArgs& args) {
  const LinearRoutedParams& p = args.p;
  const uint64_t row_stride = row_bytes(args.weight->type, p.in_features);
  const auto* bias = args.bias == nullptr ? nullptr : reinterpret_cast<const float*>(args.bias->mapped);
  const auto* chosen = args.chosen.as<int32_t>();
  std::vector<float> weights(p.in_features);
  for (u32 expert = 0; expert < p.n_experts; ++expert) {
    std::vector<u64> parts;  // row * n_used + place in the row
    for (u64 part = 0; part < u64{p.n_rows} * p.n_used; ++part)
      if (static_cast<u32>(chosen[part]) == expert) parts.push_back(part);
    for (u32 o = 0; o < p.out_features && !parts.empty(); ++o) {
      const u64 row = u64{expert} * p.out_features + o;
      dequantise_row(args.weight->type, args.weight->mapped + row * row_stride, weights.data(), p.in_features);
      for (const u64 part : parts) {
        const u64 in = p.in_parts == 1 ? part / p.n_used : part;
        const double y = dot(args.in.as<float>() + in * p.in_features, weights.data(), p.in_features);
        args.out.as<float>()[part * p.out_features + o] = static_cast<float>(bias == nullptr ? y : y + bias[row]);
      }
    }
  }
}

void sum_routed(const SumRoutedArgs& args) {
  const SumRoutedParams& p = args.p;
  for (u64 r = 0; r < p.n_rows; ++r)
    for (u64 i = 0; i < p.width; ++i) {
      double sum = 0;
      for (u64 part = r * p.n_used; part < (r + 1) * p.n_used; ++part)
        sum += static_cast<double>(args.weights.as<float>()[part]) * args.in.as<float>()[part * p.width + i];
      args.out.as<float>()[r * p.width + i] = static_cast<float>(sum);
    }
}

}  // namespace foundry::reference
