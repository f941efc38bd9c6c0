// For planted_bugs.py: runs a few kernels on exactly as much memory as they may touch, under the schedule of argv[1], and writes
// their results to standard output as floats.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "formats/dtype.h"
#include "formats/half.h"
#include "launch.h"
#include "params.h"
#include "quant_blocks.h"
#include "runtime.h"

namespace {

using foundry::AttentionParams;
using foundry::DType;
using foundry::KvParams;
using foundry::LinearParams;
using foundry::RmsNormParams;
using foundry::SequenceParams;
using foundry::SplitParams;

uint64_t state = 1;
float next() {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<float>(static_cast<int32_t>(state >> 33) % 2000) / 1000.0f - 1;
}

template <class T>
struct Exact {  // on the heap, not a byte more
  explicit Exact(size_t n) : data(static_cast<T*>(std::malloc(n * sizeof(T)))), size(n) {
    std::memset(static_cast<void*>(data.get()), 0xff, n * sizeof(T));
  }
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data;
  size_t size;
  T* get() const { return data.get(); }
};

Exact<float> floats(size_t n) {
  Exact<float> x(n);
  for (size_t i = 0; i < n; ++i) x.get()[i] = next();
  return x;
}

void write(const Exact<float>& x) { std::fwrite(x.get(), sizeof(float), x.size, stdout); }

}  // namespace

int main(int, char** argv) {
  metal_host::Launch launch;
  launch.seed = std::strtoull(argv[1], nullptr, 10);
  {
    const auto in = floats(2 * 1100), weight = floats(1100);
    const Exact<float> out(2 * 1100);
    RmsNormParams p{2, 1100, 1e-5f};
    launch.buffers[0] = in.get(), launch.buffers[1] = weight.get(), launch.buffers[2] = out.get(),
    launch.buffers[3] = &p;
    launch.grid = {2, 1, 1}, launch.threads = {foundry::RmsNormLaunch::kWide * 32, 1, 1};
    metal_host::run(launch, "rms_norm_wide");
    write(out);
  }
  for (const bool quantised : {true, false}) {
    LinearParams p{37, quantised ? 96u : 40u, 69};
    const auto in = floats(p.n_rows * p.in_features), bias = floats(p.out_features);
    const auto residual = floats(p.n_rows * p.out_features), weight = floats(p.out_features * p.in_features);
    Exact<foundry::BlockQ4_1> blocks(p.out_features * p.in_features / 32);
    for (size_t i = 0; i < blocks.size; ++i) {
      foundry::BlockQ4_1& block = blocks.get()[i];
      block.scale = foundry::f32_to_f16(next()), block.minimum = foundry::f32_to_f16(next());
      for (uint8_t& nibbles : block.nibbles) nibbles = static_cast<uint8_t>(128 + 127 * next());
    }
    const Exact<float> out(p.n_rows * p.out_features);
    launch.buffers[0] = in.get(), launch.buffers[1] = weight.get(), launch.buffers[2] = bias.get();
    if (quantised) launch.buffers[1] = blocks.get();
    launch.buffers[3] = residual.get(), launch.buffers[4] = out.get(), launch.buffers[5] = &p;
    launch.constants = 3;  // bias, residual
    launch.grid = {2, 1, 1}, launch.threads = {foundry::LinearTilesLaunch::kThreads, 1, 1};
    metal_host::run(launch, quantised ? "linear_tiles_q4_1" : "linear_tiles_f32");
    write(out);
  }
  constexpr uint32_t kRows = 37, kStart = 5, kHeads = 4, kKvHeads = 2, kDim = 64, kPage = 8, kPages = 6, kSplits = 2;
  KvParams kv{};
  kv.k_part_bytes = kPage * kDim * 2, kv.head_stride_bytes = 2 * kv.k_part_bytes;
  kv.layer_stride_bytes = kv.page_bytes = kKvHeads * kv.head_stride_bytes;
  kv.page_tokens = kPage, kv.tile_tokens = 1, kv.n_kv_heads = kKvHeads, kv.head_dim = kDim,
  kv.k_type = kv.v_type = static_cast<uint32_t>(DType::f16);
  std::vector<Exact<uint16_t>> pages;
  Exact<uint64_t> addresses(kPages);
  for (uint32_t i = 0; i < kPages; ++i) {
    pages.emplace_back(kv.page_bytes / 2);
    for (uint32_t t = 0; t < kPage; ++t)  // what lies behind the last token stays NaN
      for (uint32_t part = 0; i * kPage + t < kStart + kRows && part < 2 * kKvHeads; ++part)
        for (uint32_t d = 0; d < kDim; ++d)
          pages.back().get()[(part * kPage + t) * kDim + d] = foundry::f32_to_f16(next());
    addresses.get()[i] = reinterpret_cast<uint64_t>(pages.back().get());
  }
  SequenceParams sequence{reinterpret_cast<uint64_t>(addresses.get()), kPages, kPages * kPage, 0, kRows, kStart, 0};
  AttentionParams p{kRows, kHeads, 1, 0, 0.5f, 0, 16};
  const auto q = floats(kRows * kHeads * kDim);
  for (const bool narrow : {false, true}) {
    const Exact<float> out(kRows * kHeads * kDim);
    SplitParams split{0, 0, 0, foundry::AttentionPrefillLaunch::kRows};
    launch.buffers[0] = q.get(), launch.buffers[1] = &sequence, launch.buffers[2] = out.get(), launch.buffers[3] = &kv;
    launch.buffers[4] = &p, launch.buffers[5] = &split;
    launch.grid = {narrow ? 3u : 2u, kKvHeads, 1};
    launch.threads = {foundry::AttentionPrefillLaunch::kThreads, 1, 1};
    metal_host::run(launch, narrow ? "attention_prefill_f16_64_narrow" : "attention_prefill_f16_64");
    write(out);
  }
  {
    const Exact<float> partials(kRows * kHeads * kSplits * (kDim + 2)), out(kRows * kHeads * kDim);
    SplitParams split{0, kSplits, 1, UINT32_MAX};
    launch.buffers[0] = q.get(), launch.buffers[1] = &sequence, launch.buffers[2] = partials.get();
    launch.buffers[3] = &kv, launch.buffers[4] = &p, launch.buffers[5] = &split;
    launch.grid = {kKvHeads, kSplits, kRows}, launch.threads = {foundry::AttentionDecodeLaunch::kThreads, 1, 1};
    metal_host::run(launch, "attention_decode_f16_8_4");
    launch.buffers[0] = partials.get(), launch.buffers[1] = out.get(), launch.buffers[2] = &kv, launch.buffers[3] = &p;
    launch.buffers[4] = &split, launch.buffers[5] = &sequence;
    launch.grid = {kHeads, kRows, 1}, launch.threads = {foundry::AttentionMergeLaunch::kThreads, 1, 1};
    metal_host::run(launch, "attention_merge");
    write(out);
  }
  return 0;
}
