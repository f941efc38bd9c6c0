// The kernel tests on an NVIDIA GPU: on "cuda", or on what FOUNDRY_DEVICE names. NVRTC is what the loader finds by name
// (LD_LIBRARY_PATH). `foundry_cuda_tests --list-test-cases` and the like are doctest's.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/support.h"

int main(int argc, char** argv) {
  const char* name = std::getenv("FOUNDRY_DEVICE");
  foundry::kernel_tests::only_device = name == nullptr ? "cuda" : name;
  const auto device = foundry::make_device({foundry::kernel_tests::only_device, 1, {}, {}, {}});
  std::printf("%s: %s, %s\n", device->info().name.c_str(), device->info().isa.c_str(), device->info().system.c_str());
  return doctest::Context(argc, argv).run();
}
