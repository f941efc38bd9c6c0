#include "metal_on_linux/software/m1.h"

#include <cstring>

#include "metal_on_linux/software/machine.h"
#include "params.h"

namespace software_gpu {
namespace {

constexpr double kProducts = 0.5e12, kPerThread = 20e-9 / 1024;  // a second; of a thread that does a little

template <class T>
T bound(const Command& command, size_t index) {
  T value{};
  if (command.bindings[index].bytes.size() >= sizeof value)
    std::memcpy(&value, command.bindings[index].bytes.data(), sizeof value);
  return value;
}

/// Multiply-adds; 0 where it does little else than move bytes.
double products(const Command& command) {
  const std::string& name = command.kernel;
  if (name.starts_with("linear")) {
    const auto p = bound<foundry::LinearParams>(command, 5);
    return 1.0 * p.n_rows * p.in_features * p.out_features;
  }
  if (name.starts_with("attention_prefill")) {
    const auto p = bound<foundry::AttentionParams>(command, 4);
    const auto kv = bound<foundry::KvParams>(command, 3);
    const auto sequence = bound<foundry::SequenceParams>(command, 1);  // the first
    return 2.0 * sequence.n_rows * (sequence.start + sequence.n_rows) * p.n_heads * kv.head_dim;
  }
  return 0;
}

}  // namespace

double m1_seconds(const Command& command) {
  const double threads = 1.0 * command.grid.x * command.grid.y * command.grid.z * command.threads.x;
  return products(command) / kProducts + threads * kPerThread;
}

const char* refused(const std::string& text, uint64_t version) {
  constexpr uint64_t k3_1 = (3 << 16) + 1, k3_2 = (3 << 16) + 2;
  if (text.find("#include \"") != std::string::npos) return "a header that is not there";
  if (text.find("#include <metal_stdlib>") == std::string::npos) return "no <metal_stdlib>";
  if (version > (machine().macos >= 15 ? k3_2 : k3_1)) return "a language version that this system does not know";
  // Told to multiply and add in two steps, by a pragma that every version knows.
  if (text.find("instantiate_kernel") != std::string::npos &&
      text.find("#pragma STDC FP_CONTRACT OFF") == std::string::npos)
    return "products and sums that may be contracted";
  const size_t pragma = text.find("#pragma METAL fp contract(off)");
  const size_t guard = text.rfind("#if __METAL_VERSION__ >= 320", pragma);
  if (pragma != std::string::npos && (guard == std::string::npos || text.find("#endif", guard) < pragma))
    return "a pragma that older versions of the language do not know";
  return nullptr;
}

}  // namespace software_gpu
