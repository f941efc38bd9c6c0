// FOUNDRY_METAL_REPORT=1: what the process did, and what it left behind, said as it ends.
#include <cstdio>
#include <cstdlib>

#include "metal_on_linux/objc/runtime.h"
#include "metal_on_linux/software/gpu.h"

namespace {

struct Report {
  Report() {
    if (const char* seed = std::getenv("FOUNDRY_METAL_SCHEDULE"))
      software_gpu::schedule = std::strtoull(seed, nullptr, 10);
    if (const char* fault = std::getenv("FOUNDRY_METAL_FAULT")) software_gpu::fault = fault;
  }
  ~Report() {
    if (std::getenv("FOUNDRY_METAL_REPORT") == nullptr) return;
    const software_gpu::Totals& totals = software_gpu::totals();
    std::fprintf(stderr, "software Metal: %llu passes, %llu launches of %zu kernels, %ld live objects\n",
                 static_cast<unsigned long long>(totals.passes), static_cast<unsigned long long>(totals.launches),
                 totals.kernels.size(), objc_runtime::live());
  }
} report;

}  // namespace
