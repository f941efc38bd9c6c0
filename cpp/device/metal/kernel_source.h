// The files of metal/, each with its own headers put in: made by cmake/embed_kernels.py.
#pragma once
#include <span>
#include <string_view>

namespace foundry {

struct KernelSource {
  const char* name;  // "linear.metal"
  std::string_view text;
  bool has_parts;  // of_part of kernel.h
};
std::span<const KernelSource> kernel_sources();

}  // namespace foundry
