// embed, rms_norm, layer_norm, rope, swiglu, geglu, swiglu_clamped, sigmoid_gate, gelu, add, scale, resize_heads, select_rows.
#include <cmath>
#include <cstring>

#include "base/sample.h"
#include "device/reference/ops.h"
#include "formats/block_formats.h"

namespace foundry::reference {

void embed(const EmbedArgs& args) {
  const uint64_t row_stride = row_bytes(args.table->type, args.p.width);
  for (u32 r = 0; r < args.p.n_rows; ++r) {
    const auto token = static_cast<u64>(args.tokens.as<int32_t>()[r]);
    float* y = args.out.as<float>() + u64{r} * args.p.width;
    dequantise_row(args.table->type, args.table->mapped + token * row_stride, y, args.p.width);
    for (u32 i = 0; i < args.p.width; ++i) y[i] *= args.p.scale;
  }
}

/// RMSNorm (arXiv:1910.07467): x / sqrt(mean(x^2) + eps) * weight.
void rms_norm(const RmsNormArgs& args) {
  const auto* weight = reinterpret_cast<const float*>(args.weight->mapped);
  for (u32 r = 0; r < args.p.n_rows; ++r) {
    const float* x = args.in.as<float>() + u64{r} * args.p.width;
    float* y = args.out.as<float>() + u64{r} * args.p.width;
    double squares = 0;
    for (u32 i = 0; i < args.p.width; ++i) squares += static_cast<double>(x[i]) * x[i];
    const double scale = 1 / std::sqrt(squares / args.p.width + static_cast<double>(args.p.eps));
    for (u32 i = 0; i < args.p.width; ++i) y[i] = static_cast<float>(x[i] * scale * weight[i]);
  }
}

/// LayerNorm (arXiv:1607.06450): (x - mean) / sqrt(variance + eps) * weight + bias.
void layer_norm(const LayerNormArgs& args) {
  const auto* weight = reinterpret_cast<const float*>(args.weight->mapped);
  const auto* bias = args.bias == nullptr ? nullptr : reinterpret_cast<const float*>(args.bias->mapped);
  for (u32 r = 0; r < args.p.n_rows; ++r) {
    const float* x = args.in.as<float>() + u64{r} * args.p.width;
    float* y = args.out.as<float>() + u64{r} * args.p.width;
    double sum = 0, squares = 0;
    for (u32 i = 0; i < args.p.width; ++i) sum += x[i];
    const double mean = sum / args.p.width;
    for (u32 i = 0; i < args.p.width; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const double scale = 1 / std::sqrt(squares / args.p.width + static_cast<double>(args.p.eps));
    for (u32 i = 0; i < args.p.width; ++i)
      y[i] = static_cast<float>((x[i] - mean) * scale * weight[i] + (bias == nullptr ? 0.0f : bias[i]));
  }
}

/// RoPE (arXiv:2104.09864): pair i is turned by position * scale * base^(-2i / rot_dim) / factor[i]. What is turned
/// comes out times magnitude, and all of a head times the temperature of its position.
void rope(const RopeArgs& args) {
  const RopeParams& p = args.p;
  const auto* factors = args.factors == nullptr ? nullptr : reinterpret_cast<const float*>(args.factors->mapped);
  for (u32 r = 0; r < p.n_rows; ++r)
    for (u32 h = 0; h < p.n_heads; ++h) {
      const float* x = args.in.as<float>() + (u64{r} * p.n_heads + h) * p.head_dim;
      float* y = args.out.as<float>() + (u64{r} * p.n_heads + h) * p.head_dim;
      if (y != x) std::memcpy(y, x, p.head_dim * sizeof(float));
      const int32_t position = args.positions.as<int32_t>()[r];
      for (u32 i = 0; i < p.rot_dim / 2; ++i) {
        const double frequency =
            std::pow(static_cast<double>(p.base), -2.0 * i / p.rot_dim) / (factors == nullptr ? 1.0 : factors[i]);
        const double angle = position * static_cast<double>(p.scale) * frequency;
        const u32 first = p.style == 0 ? 2 * i : i, second = p.style == 0 ? 2 * i + 1 : i + p.rot_dim / 2;
        const double a = y[first], b = y[second];
        y[first] = static_cast<float>((a * std::cos(angle) - b * std::sin(angle)) * p.magnitude);
        y[second] = static_cast<float>((a * std::sin(angle) + b * std::cos(angle)) * p.magnitude);
      }
      if (p.temperature_length == 0) continue;
      const double times = 1 + p.temperature * std::log1p(position / p.temperature_length);
      for (u32 d = 0; d < p.head_dim; ++d) y[d] = static_cast<float>(y[d] * times);
    }
}

/// SwiGLU (arXiv:2002.05202): silu(gate) * up.
void swiglu(const GatedArgs& args) {
  const u64 n = u64{args.n_rows} * args.width;
  for (u64 i = 0; i < n; ++i) {
    const double gate = args.gate.as<float>()[i];
    args.out.as<float>()[i] = static_cast<float>(gate / (1 + std::exp(-gate)) * args.up.as<float>()[i]);
  }
}

/// GEGLU (arXiv:2002.05202) with GELU by tanh (arXiv:1606.08415): 0.5 x (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2 /
/// pi) (x + 0.044715 x^3).
void geglu(const GatedArgs& args) {
  const u64 n = u64{args.n_rows} * args.width;
  for (u64 i = 0; i < n; ++i) {
    const double gate = args.gate.as<float>()[i];
    const double u = std::sqrt(2 / std::acos(-1.0)) * (gate + 0.044715 * gate * gate * gate);
    args.out.as<float>()[i] = static_cast<float>(gate / (1 + std::exp(-2 * u)) * args.up.as<float>()[i]);
  }
}

/// gpt-oss's (arXiv:2508.10925).
void swiglu_clamped(const ClampedGateArgs& args) {
  const u64 n = u64{args.n_rows} * args.width;
  const double limit = args.limit;
  for (u64 i = 0; i < n; ++i) {
    const double g = args.gate.as<float>()[i], u = args.up.as<float>()[i];
    const double gate = g > limit ? limit : g, up = u > limit ? limit : u < -limit ? -limit : u;  // NaN stays
    args.out.as<float>()[i] = static_cast<float>(gate / (1 + std::exp(-args.alpha * gate)) * (up + 1));
  }
}

void sigmoid_gate(const SigmoidGateArgs& args) {
  const SigmoidGateParams& p = args.p;
  for (u64 head = 0; head < u64{p.n_rows} * p.n_heads; ++head)
    for (u64 i = 0; i < p.width; ++i) {
      const double gate = args.gate.as<float>()[head * p.of_head + (p.of_head == 1 ? 0 : p.of_head - p.width + i)];
      args.out.as<float>()[head * p.width + i] =
          static_cast<float>(args.in.as<float>()[head * p.width + i] / (1 + std::exp(-gate)));
    }
}

void gelu(const GeluArgs& args) {
  const u64 n = u64{args.n_rows} * args.width;
  for (u64 i = 0; i < n; ++i) {
    const double x = args.in.as<float>()[i];
    const double u = std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
    args.out.as<float>()[i] = static_cast<float>(x / (1 + std::exp(-2 * u)));
  }
}

void scale(const ScaleArgs& args) {
  for (u64 i = 0; i < args.p.n; ++i) {
    const float y = args.in.as<float>()[i] * args.p.scale;
    args.out.as<float>()[i] = args.p.cap == 0 ? y : static_cast<float>(soft_cap(y, args.p.cap));
  }
}

void resize_heads(const ResizeHeadsArgs& args) {
  for (u64 i = 0; i < args.p.n; ++i) {
    const u64 head = i / args.p.to, d = i % args.p.to;
    args.out.as<float>()[i] = d < args.p.from ? args.in.as<float>()[head * args.p.from + d] : 0.0f;
  }
}

void add(const AddArgs& args) {
  const u64 n = u64{args.n_rows} * args.width;
  for (u64 i = 0; i < n; ++i) args.out.as<float>()[i] = args.a.as<float>()[i] + args.b.as<float>()[i];
}

void select_rows(const SelectRowsArgs& args) {
  for (u32 i = 0; i < args.n_selected; ++i)
    std::memcpy(args.out.as<float>() + u64{i} * args.width,
                args.in.as<float>() + static_cast<u64>(args.rows.as<int32_t>()[i]) * args.width,
                args.width * sizeof(float));
}

void sample(const SampleArgs& args) {
  std::vector<std::pair<float, int32_t>> room;
  for (u32 i = 0; i < args.n_rows; ++i)
    args.out.as<int32_t>()[i] =
        foundry::sample({args.logits.as<float>() + u64{i} * args.vocab_size, args.vocab_size}, args.params[i], room);
}

}  // namespace foundry::reference
