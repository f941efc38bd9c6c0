// Kernels of metal/, translated to CUDA: launched by name.
#pragma once
#include <cstdint>

extern "C" {
/// Asynchronous, on a stream. Slot i is an address, or n_bytes[i] bytes of parameters; constants are function constants, a bit each. 0, or CUDA's error; -1: no such kernel.
int foundry_cuda_launch(const char* kernel, uint32_t x, uint32_t y, uint32_t z, uint32_t threads, void* const* buffers,
                        const void* const* bytes, const uint32_t* n_bytes, uint32_t n_slots, uint32_t constants,
                        void* stream);
}
