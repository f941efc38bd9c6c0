// The kernel tests on "metal:host", once for each schedule: foundry_metal_tests [schedules] [doctest's options].
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/support.h"
#include "metal_on_linux/host/runtime.h"
#include "metal_on_linux/host_queue.h"

int main(int argc, char** argv) {
  using namespace foundry;
  metal_tests::register_host_device();
  kernel_tests::only_device = "metal:host";
  const char* wanted = std::getenv("FOUNDRY_SCHEDULES");
  const uint64_t schedules = wanted == nullptr ? 2 : std::strtoull(wanted, nullptr, 10);
  for (metal_tests::schedule = 0; metal_tests::schedule < schedules; ++metal_tests::schedule) {
    doctest::Context context(argc, argv);
    if (const int failed = context.run(); failed != 0 || context.shouldExit()) return failed;
  }
  std::printf("metal on the host: %zu of %zu kernels, %llu launches, %llu schedules\n", metal_tests::seen.size(),
              metal_host::kernels().size(), static_cast<unsigned long long>(metal_tests::launches),
              static_cast<unsigned long long>(schedules));
  return 0;
}
