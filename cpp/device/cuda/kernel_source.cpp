#include "device/cuda/kernel_source.h"

#include <string_view>

#include "base/error.h"
#include "base/hash.h"

namespace foundry::cuda {
namespace {

/// A name of its own, or one of those that the file puts together from the base.
bool has_kernel(std::string_view text, const Dispatch& launch) {
  const std::string whole = "\"" + std::string(launch.kernel.data()) + "\"", base = "\"" + launch.base() + "_\"";
  return text.find(whole) != std::string_view::npos || text.find(base) != std::string_view::npos;
}

uint64_t hash(std::span<const Compiler::Text> texts, uint64_t seed) {
  for (const Compiler::Text& one : texts) {
    seed = hash64(std::as_bytes(std::span(std::string_view(one.name))), seed);
    seed = hash64(std::as_bytes(std::span(std::string_view(one.text))), seed);
  }
  return seed;
}

}  // namespace

uint64_t kernel_source_hash() {
  static const uint64_t known = hash(kernel_headers(), hash(kernel_files(), 0));
  return known;
}

KernelProgram program_of(const Dispatch& launch) {
  const std::string kernel = launch.kernel.data();
  for (const Compiler::Text& file : kernel_files()) {
    if (!has_kernel(file.text, launch)) continue;
    KernelProgram made;
    made.file = file.name;
    const std::string part = launch.part().empty() ? "rest" : launch.part();
    const std::string constants = std::to_string(launch.constants);
    const bool own_wait = std::string_view(file.text).find("WAIT_FOR_INPUTS()") != std::string_view::npos;
    made.source = "#define FOUNDRY_CONSTANTS " + constants + "u\n#define FOUNDRY_OWN_WAIT " +
                  (own_wait ? "true" : "false") + "\n#define FOUNDRY_PART\n#define FOUNDRY_PART_" + part +
                  " ,\n#line 1 \"" + file.name + "\"\n" + file.text + "\nFOUNDRY_ENTRY(" + kernel + ", " + constants +
                  ")\n";
    // Order and rounding are the source's: nothing is contracted.
    made.options = {"--std=c++20", "--device-as-default-execution-space", "--fmad=false", "--diag-suppress=177,550"};
    // Left to itself, the compiler stops at 168 registers and has attention_prefill wait for each load: 93 TFLOP/s
    // instead of 157. (Decode is the better for stopping there.)
    if (launch.base() == "attention_prefill") made.options.push_back("--maxrregcount=255");
    // Two threadgroups of linear_few find room at once, and the compiler uses what there is to overlap blocks; but of one
    // row and 32 outputs too many: 36 us in place of 30 (4096 x 14336 twice, Q4_0).
    if (launch.base() == "linear_few")
      made.options.push_back(kernel.ends_with("_32_1") ? "--maxrregcount=104" : "--maxrregcount=128");
    // As many threads as there may be, all of whose registers are 64 each.
    if (launch.base() == "sample") made.options.push_back("--maxrregcount=64");
    if (launch.base() == "linear_wide") made.options.push_back("--maxrregcount=255");
    made.entry = "foundry_" + kernel + "_" + constants;
    return made;
  }
  throw ConsistencyError("cuda: expected a kernel " + kernel + ", found none in metal/");
}

}  // namespace foundry::cuda
