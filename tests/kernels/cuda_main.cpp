// The kernel tests on an NVIDIA GPU: the kernels of metal/, translated.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "device/cuda/cuda_queue.h"
#include "kernels/support.h"

int main(int argc, char** argv) {
  foundry::register_device("cuda", foundry::make_cuda_device);
  foundry::kernel_tests::only_device = "cuda";
  return doctest::Context(argc, argv).run();
}
