// The kernel tests, once for each schedule (FOUNDRY_SCHEDULES, 2): on "metal", the real device over the software Metal, where the
// program has it, or on "metal:host", the kernels alone (FOUNDRY_DEVICE).
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>

#include "kernels/support.h"
#include "metal_on_linux/host/runtime.h"
#include "metal_on_linux/host_queue.h"
#ifdef FOUNDRY_METAL
#include "metal_on_linux/software/gpu.h"

extern "C" long foundry_objc_live();
#endif

namespace {

std::string wanted(const char* variable, const char* otherwise) {
  const char* found = std::getenv(variable);
  return found == nullptr ? otherwise : found;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace foundry;
  metal_tests::register_host_device();
#ifdef FOUNDRY_METAL
  kernel_tests::only_device = wanted("FOUNDRY_DEVICE", "metal");
#else
  kernel_tests::only_device = "metal:host";
#endif
  const uint64_t schedules = std::stoull(wanted("FOUNDRY_SCHEDULES", "2"));
  for (metal_tests::schedule = 0; metal_tests::schedule < schedules; ++metal_tests::schedule) {
#ifdef FOUNDRY_METAL
    software_gpu::schedule = metal_tests::schedule;
#endif
    doctest::Context context(argc, argv);
    if (const int failed = context.run(); failed != 0 || context.shouldExit()) return failed;
  }
  std::set<std::string> kernels = metal_tests::seen;
  uint64_t launches = metal_tests::launches;
#ifdef FOUNDRY_METAL
  kernels.merge(std::set(software_gpu::totals().kernels)), launches += software_gpu::totals().launches;
  if (foundry_objc_live() != 0) return std::printf("%ld objects are left\n", foundry_objc_live()), 1;
#endif
  std::printf("%s: %zu of %zu kernels, %zu cases, %llu schedules: %llu launches\n", kernel_tests::only_device.c_str(),
              kernels.size(), metal_host::kernels().size(), kernel_tests::cases_seen.size(),
              static_cast<unsigned long long>(schedules), static_cast<unsigned long long>(launches));
  for (const auto& [name, body] : metal_host::kernels())
    if (!kernels.contains(name)) std::printf("  not run: %s\n", name.c_str());
  return 0;
}
