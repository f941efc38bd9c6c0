#include "device/cuda/driver.h"

#include <dlfcn.h>

namespace foundry::cuda {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";

struct Found {
  Driver driver;
  bool usable = false;
  std::string why;
};

Found find() {
  Found found;
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    found.why = "no driver (" + std::string(kLibrary) + ")";
    return found;
  }
  const auto get = [&](auto& member, const char* name, bool needed = true) {
    member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(dlsym(library, name));
    if (needed && member == nullptr && found.why.empty())
      found.why = "a driver that is too old, without " + std::string(name);
  };
#define FOUNDRY_FIND(member, name, parameters) get(found.driver.member, #name);
  FOUNDRY_CUDA_DRIVER(FOUNDRY_FIND)
#undef FOUNDRY_FIND
#define FOUNDRY_FIND(member, name, parameters) get(found.driver.member, #name, false);
  FOUNDRY_CUDA_NEWER_DRIVER(FOUNDRY_FIND)
#undef FOUNDRY_FIND
  if (!found.why.empty()) return found;
  if (const Result result = found.driver.init(0); result != kSuccess)
    found.why = "a driver that says " + found.driver.name_of(result);
  else
    found.usable = true;
  return found;
}

}  // namespace

std::string Driver::name_of(Result error) const {
  const char* name = nullptr;
  if (error_name(error, &name) != kSuccess || name == nullptr) return "CUDA error " + std::to_string(error);
  return name;
}

const Driver* driver(std::string* why) {
  static const Found found = find();
  if (why != nullptr) *why = found.why;
  return found.usable ? &found.driver : nullptr;
}

}  // namespace foundry::cuda
