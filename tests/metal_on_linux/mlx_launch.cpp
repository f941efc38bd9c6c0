// For mlx_corpus.py, which loads it: one launch of a kernel on the host.
#include <algorithm>

#include "runtime.h"

/// `numbers`: n_numbers pairs of index and value. What breaks a rule of the runtime ends the process with a message.
extern "C" void launch(const char* kernel, void* const* buffers, const uint64_t* lengths, const uint32_t* grid,
                       const uint32_t* threads, uint64_t seed, uint32_t bools, const int32_t* numbers,
                       uint32_t n_numbers) {
  metal_host::Launch one;
  std::copy_n(buffers, metal_host::kMostBuffers, one.buffers);
  std::copy_n(lengths, metal_host::kMostBuffers, one.lengths);
  one.grid = {grid[0], grid[1], grid[2]};
  one.threads = {threads[0], threads[1], threads[2]};
  one.seed = seed;
  one.constants = bools;
  for (uint32_t i = 0; i < n_numbers; ++i) one.numbers[static_cast<uint32_t>(numbers[2 * i])] = numbers[2 * i + 1];
  metal_host::run(one, kernel);
}
