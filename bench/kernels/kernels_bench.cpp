// The bench lines of the case table on the best CPU device, all threads: what share of the machine's bandwidth or
// arithmetic a kernel reaches is these figures over those of `bandwidth`.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <numeric>

#include "cases/cases.h"
#include "device/device.h"
#include "kernels/data.h"
#include "kv/kv.h"

namespace foundry {
namespace {

using kernel_tests::Random;

std::unique_ptr<Device> device() { return make_device({"cpu", 0, {}}); }

/// An op inside a step of its own, over and over.
template <class F>
void steps(benchmark::State& state, Device& device, const StepShape& shape, const F& op) {
  const auto scratch = device.allocate(device.scratch_bytes(shape), MemoryKind::device);
  for (auto _ : state) {
    device.begin({scratch.get(), 0}, shape);
    op();
    device.wait(device.submit());
  }
}

std::unique_ptr<Buffer> filled(Device& device, const std::vector<float>& values) {
  auto buffer = device.allocate(values.size() * sizeof(float), MemoryKind::device);
  device.upload({buffer.get(), 0}, std::as_bytes(std::span(values)));
  return buffer;
}

/// Reads 256 MiB with one thread's plain loop: what one core can fetch.
void bandwidth(benchmark::State& state) {
  std::vector<uint64_t> data((uint64_t{256} << 20) / 8, 1);
  for (auto _ : state) benchmark::DoNotOptimize(std::accumulate(data.begin(), data.end(), uint64_t{0}));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * data.size() * 8));
}

void linear(benchmark::State& state, const cases::Case& one) {
  const auto cpu = device();
  Random random(one.seed());
  const uint32_t rows = one.number("rows"), in = one.number("in"), out = one.numbers("out").at(0);
  const auto data = kernel_tests::random_weight(random, one.type("type"), out, in);
  const auto weight = cpu->prepare(data.view(), WeightUse::linear);
  const auto x = filled(*cpu, kernel_tests::random_floats(random, uint64_t{rows} * in));
  const auto y = cpu->allocate(uint64_t{rows} * out * sizeof(float), MemoryKind::device);
  LinearArgs args;
  args.in = {x.get(), 0};
  args.outputs.push_back({{rows, in, out}, weight.get(), nullptr, {y.get(), 0}});
  steps(state, *cpu, {rows, in, 1, 1, 1, 8}, [&] { cpu->linear(args); });
  state.counters["weight_bytes/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * data.bytes.size()), benchmark::Counter::kIsRate);
  state.counters["op/s"] =
      benchmark::Counter(2.0 * static_cast<double>(state.iterations()) * rows * in * out, benchmark::Counter::kIsRate);
}

void attention(benchmark::State& state, const cases::Case& one) {
  const auto cpu = device();
  Random random(one.seed());
  const cases::SequenceCase sequence = one.sequences().at(0);
  KvGeometry g;
  g.n_layers = 1, g.n_kv_heads = one.number("kv_heads"), g.head_dim = one.number("head_dim");
  g.page_tokens = one.number("page_tokens");
  g.tile_tokens = std::min(g.page_tokens, cpu->info().max_tile_tokens);
  g.k_type = one.type("k_type"), g.v_type = one.type("v_type");
  MemoryLedger ledger(UINT64_MAX);
  PagePool pool(*cpu, ledger, g, 8);
  PageTable table(pool);
  const uint32_t tokens = sequence.start + sequence.rows, heads = one.number("heads");
  table.grow(static_cast<uint32_t>(g.pages_for(tokens)));
  SequenceParams params{};
  params.pages = table.addresses_at();
  params.n_pages = table.size(), params.max_seq_len = tokens, params.n_rows = tokens;
  const uint64_t kv_width = uint64_t{g.n_kv_heads} * g.head_dim, width = uint64_t{heads} * g.head_dim;
  const auto kv = filled(*cpu, kernel_tests::random_floats(random, tokens * kv_width));
  const auto q = filled(*cpu, kernel_tests::random_floats(random, sequence.rows * width));
  const auto out = cpu->allocate(sequence.rows * width * sizeof(float), MemoryKind::device);
  const StepShape shape{tokens, 1, 1, heads, g.n_kv_heads, g.head_dim};
  const auto scratch = cpu->allocate(cpu->scratch_bytes(shape), MemoryKind::device);
  cpu->begin({scratch.get(), 0}, shape);
  cpu->kv_append({g.params(), 0, tokens, 1, &params, {kv.get(), 0}, {kv.get(), 0}});
  params.n_rows = sequence.rows, params.start = sequence.start;
  AttentionParams p{};
  p.n_rows = sequence.rows, p.n_heads = heads, p.n_sequences = 1, p.scale = 0.1f, p.segment_tokens = kSegmentTokens;
  steps(state, *cpu, shape, [&] { cpu->attention({p, g.params(), &params, {q.get(), 0}, {out.get(), 0}}); });
  const double seen = sequence.rows * (sequence.start + (sequence.rows + 1) / 2.0);
  state.counters["kv_bytes/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * tokens * static_cast<double>(g.page_bytes()) / g.page_tokens,
      benchmark::Counter::kIsRate);
  state.counters["op/s"] = benchmark::Counter(
      4.0 * static_cast<double>(state.iterations()) * seen * static_cast<double>(width), benchmark::Counter::kIsRate);
}

/// A sequence's rows through each layer of many in turn, from one state into another, as a decode does it: both states
/// are far larger than caches.
void gated_delta(benchmark::State& state, const cases::Case& one) {
  const auto cpu = device();
  Random random(one.seed());
  GatedDeltaParams p{};
  p.n_rows = one.number("rows"), p.k_heads = one.number("k_heads"), p.v_heads = one.number("v_heads");
  p.head_k = one.number("head_k"), p.head_v = one.number("head_v"), p.eps = p.qk_eps = 1e-6f;
  const uint32_t layers = one.number("layers");
  const uint64_t values = uint64_t{p.v_heads} * p.head_v, width = 2 * uint64_t{p.k_heads} * p.head_k + values;
  const uint64_t bytes = values * p.head_k * sizeof(float);
  std::vector<std::unique_ptr<Buffer>> states;
  for (int i = 0; i < 2; ++i) {
    states.push_back(cpu->allocate(layers * bytes, MemoryKind::device));
    const std::vector<float> start = kernel_tests::random_floats(random, bytes / sizeof(float));
    for (uint32_t l = 0; l < layers; ++l)
      cpu->upload({states.back().get(), l * bytes}, std::as_bytes(std::span(start)));
  }
  const auto vector = [&](std::vector<float> x) { return kernel_tests::weight_from(x, 1, x.size()); };
  const auto of_decay = vector(std::vector<float>(p.v_heads, -0.1f)), of_bias = vector(std::vector<float>(p.v_heads));
  const auto of_norm = vector(std::vector<float>(p.head_v, 1.0f));
  const auto decay = cpu->prepare(of_decay.view(), WeightUse::table);
  const auto bias = cpu->prepare(of_bias.view(), WeightUse::table);
  const auto norm = cpu->prepare(of_norm.view(), WeightUse::table);
  const auto mixed = filled(*cpu, kernel_tests::random_floats(random, p.n_rows * width));
  const auto scalars = filled(*cpu, kernel_tests::random_floats(random, uint64_t{p.n_rows} * p.v_heads));
  const auto z = filled(*cpu, kernel_tests::random_floats(random, p.n_rows * values));
  const auto out = cpu->allocate(p.n_rows * values * sizeof(float), MemoryKind::device);
  uint64_t at = 0;
  steps(state, *cpu, {p.n_rows, static_cast<uint32_t>(width), 1, 1, 1, 8}, [&] {
    const uint64_t round = at / layers % 2;
    p.state_at_bytes = at++ % layers * bytes;
    const StateRun run{states[round]->address(), states[1 - round]->address(), 0, p.n_rows};
    cpu->gated_delta({p,
                      &run,
                      1,
                      decay.get(),
                      bias.get(),
                      norm.get(),
                      {mixed.get(), 0},
                      {scalars.get(), 0},
                      {scalars.get(), 0},
                      {z.get(), 0},
                      {out.get(), 0}});
  });
  state.counters["rows/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * p.n_rows, benchmark::Counter::kIsRate);
  state.counters["state_bytes/s"] =
      benchmark::Counter(2.0 * static_cast<double>(state.iterations() * bytes), benchmark::Counter::kIsRate);
}

template <class F>
void add(const std::string& op, F* run) {
  for (const cases::Case& one : cases::load(FOUNDRY_TEST_CASES_DIR "/kernels.cases", op, true))
    benchmark::RegisterBenchmark(one.text.c_str(), [run, one](benchmark::State& state) { run(state, one); })
        ->MeasureProcessCPUTime()
        ->UseRealTime();  // on a busy machine the processors' time is what compares
}

}  // namespace
}  // namespace foundry

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("device", foundry::make_device({"cpu", 0, {}})->info().isa);
  benchmark::RegisterBenchmark("bandwidth of one core", foundry::bandwidth)->UseRealTime();
  foundry::add("linear", foundry::linear);
  foundry::add("attention", foundry::attention);
  foundry::add("gated_delta", foundry::gated_delta);
  benchmark::RunSpecifiedBenchmarks();
}
