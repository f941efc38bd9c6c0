// Compiles the kernels of the CUDA device by NVRTC, as the device does, without a GPU: a line for each, with its
// registers and the bytes that are stored for want of them.
//
//     foundry_nvrtc_compile NVRTC ARCHITECTURE FIRST EACH
//
// compiles each EACHth instance from FIRST on. NVRTC is a path, or empty for the loader's name. registers.py holds the lines to a table.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/cuda/compiler.h"
#include "device/cuda/kernel_source.h"
#include "formats/formats.def"
#include "launch.h"

namespace {

using foundry::Dispatch;
using foundry::cuda::Compiler;

Dispatch named(const char* base, const std::vector<const char*>& parts, uint32_t constants = 0) {
  Dispatch launch(base, {}, 1);
  for (const char* part : parts) launch.of(part);
  for (uint32_t bit = 0; constants >> bit != 0; ++bit) launch.constant(bit, (constants >> bit & 1) != 0);
  return launch;
}

constexpr uint32_t kPlain = 0, kBias = 1, kSinks = 1, kBiasAndResidual = 3, kNormAndGate = 12;

/// A gate takes 32 outputs.
constexpr uint32_t few_constants(uint32_t outputs) { return outputs == 32 ? kNormAndGate : kPlain; }

/// Those of one format.
void add_format(std::vector<Dispatch>& all, const char* name, bool is_linear, bool is_plain, bool is_table,
                bool is_kv) {
  for (const uint32_t constants : {kPlain, kNormAndGate})
    if (is_linear) all.push_back(named("linear", {name}, constants));
  if (is_linear && is_plain) all.push_back(named("linear", {name, "single"}, kNormAndGate));
  if (is_linear) all.push_back(named("linear_tiles", {name}, kBiasAndResidual));
  if (is_linear) all.push_back(named("linear_routed", {name}, kBias));
  if (is_linear && is_plain) all.push_back(named("linear_routed", {name, "single"}, kBias));
#define FOUNDRY_FEW_ONE(part, outputs, rows) \
  if (is_plain) all.push_back(named("linear_few", {part, #outputs, #rows}, few_constants(outputs)));
  FOUNDRY_FEW_SHAPES(FOUNDRY_FEW_ONE, name)
  if (is_table) all.push_back(named("embed", {name}));
  if (is_kv) all.push_back(named("kv_append", {name})), all.push_back(named("rope_append", {name}));
}

/// Those for many rows with wide tiles.
void add_wide(std::vector<Dispatch>& all, const std::vector<const char*>& name) {
  for (const char* side : {"128", "64"}) {
    std::vector<const char*> parts = name;
    parts.push_back(side);
    all.push_back(named("linear_wide", parts, kBiasAndResidual));
  }
}

/// Those of one format's other order.
void add_arranged(std::vector<Dispatch>& all, const char* name) {
  all.push_back(named("linear_tiles", {name, "arranged"}, kBiasAndResidual));
#define FOUNDRY_FEW_ARRANGED(part, outputs, rows) \
  all.push_back(named("linear_few", {part, "arranged", #outputs, #rows}, few_constants(outputs)));
  FOUNDRY_FEW_SHAPES(FOUNDRY_FEW_ARRANGED, name)
  add_wide(all, {name, "arranged"});
}

std::vector<Dispatch> every_kernel() {
  std::vector<Dispatch> all;
#define FOUNDRY_ONE(name, Name, number, elements, bytes, kind, linear, table, kv)                      \
  add_format(all, #name, (FOUNDRY_GPU_##linear(true ||) false), (FOUNDRY_PLAIN_##kind(true ||) false), \
             (FOUNDRY_GPU_##table(true ||) false), (FOUNDRY_GPU_##kv(true ||) false));
  FOUNDRY_FORMATS(FOUNDRY_ONE)
#define FOUNDRY_ONE_WIDE(name, Name, halves) add_wide(all, {#name});
  FOUNDRY_WIDE(FOUNDRY_ONE_WIDE)
#define FOUNDRY_ONE_ARRANGED(name, Name) add_arranged(all, #name);
  FOUNDRY_ARRANGED(FOUNDRY_ONE_ARRANGED)
#define FOUNDRY_DECODE_ONE(queries, lanes, name) all.push_back(named("attention_decode", {#name, #lanes, #queries}));
#define FOUNDRY_DECODE_LANE(lanes, name) FOUNDRY_DECODE_QUERIES(FOUNDRY_DECODE_ONE, lanes, name)
#define FOUNDRY_DECODE_FORMAT(name, Format) FOUNDRY_DECODE_LANES(FOUNDRY_DECODE_LANE, name)
  FOUNDRY_DECODE_FORMATS(FOUNDRY_DECODE_FORMAT)
  FOUNDRY_DECODE_FORMAT(any, AnyFormat)
#define FOUNDRY_PREFILL_ONE(dim, keys, name) all.push_back(named("attention_prefill", {#name, #dim}));
#define FOUNDRY_PREFILL_FORMAT(name, Format) FOUNDRY_PREFILL_DIMS(FOUNDRY_PREFILL_ONE, name)
  FOUNDRY_PREFILL_FORMATS(FOUNDRY_PREFILL_FORMAT)
  FOUNDRY_PREFILL_FORMAT(any, AnyFormat)
  all.push_back(named("rms_norm", {"narrow"}));
  all.push_back(named("rms_norm", {"wide"}));
  for (const char* name : {"attention_merge", "layer_norm", "rope", "swiglu", "geglu", "swiglu_clamped", "sigmoid_gate",
                           "gelu", "add", "scale", "resize_heads", "select_rows", "sum_routed", "short_conv_state",
                           "gated_delta_norm", "sample", "split_rows"})
    all.push_back(named(name, {}));
  all.push_back(named("attention_merge", {}, kSinks));
  all.push_back(named("attention_prefill", {"f16", "64"}, kSinks));
  for (const char* name : {"route", "short_conv"})
    for (const uint32_t constants : {kPlain, kBias}) all.push_back(named(name, {}, constants));
#define FOUNDRY_DELTA_ONE(slices) all.push_back(named("gated_delta", {#slices}));
  FOUNDRY_DELTA_SLICES(FOUNDRY_DELTA_ONE)
  return all;
}

/// The number that stands before `what` in what ptxas says; -1: it says none.
long number_before(const std::string& log, const std::string& what) {
  size_t end = log.find(what);
  if (end == std::string::npos) return -1;
  size_t begin = end;
  while (begin > 0 && log[begin - 1] >= '0' && log[begin - 1] <= '9') --begin;
  return std::strtol(log.c_str() + begin, nullptr, 10);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return std::printf("expected NVRTC ARCHITECTURE FIRST EACH\n"), 2;
  const std::string architecture = argv[2];
  const size_t first = std::strtoull(argv[3], nullptr, 10), each = std::strtoull(argv[4], nullptr, 10);
  try {
    const auto compiler = Compiler::open(argv[1]);
    const std::vector<Dispatch> all = every_kernel();
    for (size_t i = first; i < all.size(); i += each) {
      if (all[i].base() == "linear_wide" && architecture != "sm_90a") continue;  // which no other GPU is given
      const auto program = foundry::cuda::program_of(all[i]);
      std::vector<std::string> options = program.options;
      options.insert(options.end(), {"--gpu-architecture=" + architecture, "--ptxas-options=-v"});
      std::string log;
      compiler->compile(program.file, program.source, foundry::cuda::kernel_headers(), options, &log);
      std::printf("%s-%u %s %ld %ld\n", all[i].kernel.data(), all[i].constants, architecture.c_str(),
                  number_before(log, " registers"), number_before(log, " bytes spill stores"));
      std::fflush(stdout);
    }
  } catch (const foundry::Error& error) {
    return std::printf("%s\n", error.what()), 1;
  }
  return 0;
}
