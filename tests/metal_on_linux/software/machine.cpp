#include "metal_on_linux/software/machine.h"

#include <cstdlib>
#include <map>

namespace software_gpu {
namespace {

std::string setting(const char* name, const std::string& otherwise) {
  const char* found = std::getenv(name);
  return found == nullptr ? otherwise : found;
}

Machine from_the_environment() {
  Machine made;
  made.macos = std::stoi(setting("FOUNDRY_METAL_MACOS", "15"));
  made.build = setting("FOUNDRY_METAL_BUILD", made.macos == 14 ? "23F79" : "24A335");
  made.family = std::stoi(setting("FOUNDRY_METAL_GPU", "7"));
  made.listed = setting("FOUNDRY_METAL_FOUND", "listed") == "listed";
  return made;
}

/// The first macOS that has it.
const std::map<std::string, int> kNewer{
    {"MTLResidencySetDescriptor", 15},
    {"newResidencySetWithDescriptor:error:", 15},
    {"addResidencySet:", 15},
    {"removeResidencySet:", 15},
    {"setMathMode:", 15},
};

}  // namespace

Machine& machine() {
  static auto* made = new Machine(from_the_environment());
  return *made;
}

bool knows(const std::string& name) {
  const auto found = kNewer.find(name);
  return found == kNewer.end() || found->second <= machine().macos;
}

}  // namespace software_gpu
