// The files of metal/ and their headers, translated to CUDA, with the headers of metal/translate/cuda: made by
// cmake/embed_cuda.py.
#pragma once
#include <span>
#include <string>

#include "device/cuda/compiler.h"
#include "device/gpu/kernel_queue.h"

namespace foundry::cuda {

std::span<const Compiler::Text> kernel_files();
/// By the names that files include them by.
std::span<const Compiler::Text> kernel_headers();
/// Of all of it.
uint64_t kernel_source_hash();

/// One instance of a kernel, with its function constants as constants, as a program for the compiler.
struct KernelProgram {
  std::string file;  // for messages
  std::string source;
  std::vector<std::string> options;  // but for the architecture
  std::string entry;                 // the function's name in the cubin
};
/// ConsistencyError: no file has such a kernel.
KernelProgram program_of(const Dispatch& launch);

}  // namespace foundry::cuda
