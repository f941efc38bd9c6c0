#include "device/cuda/compiler.h"

#include <dlfcn.h>

#include <algorithm>
#include <type_traits>

#include "base/error.h"

namespace foundry::cuda {
namespace {

using NvrtcResult = int;
using Program = struct _nvrtcProgram*;
constexpr int kOldestMajor = 12;  // it has C++20
constexpr const char* kNames[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
constexpr const char* kHowToInstall = "pip install 'foundry-llm[cuda]'";

}  // namespace

// The member's name, the library's, and the parameters.
#define FOUNDRY_NVRTC(FUNCTION)                                                                                 \
  FUNCTION(version, nvrtcVersion, (int* major, int* minor))                                                     \
  FUNCTION(architecture_count, nvrtcGetNumSupportedArchs, (int* n))                                             \
  FUNCTION(architectures, nvrtcGetSupportedArchs, (int* all))                                                   \
  FUNCTION(create, nvrtcCreateProgram,                                                                          \
           (Program * program, const char* source, const char* name, int n_headers, const char* const* headers, \
            const char* const* header_names))                                                                   \
  FUNCTION(compile, nvrtcCompileProgram, (Program program, int n_options, const char* const* options))          \
  FUNCTION(destroy, nvrtcDestroyProgram, (Program * program))                                                   \
  FUNCTION(log_size, nvrtcGetProgramLogSize, (Program program, size_t* bytes))                                  \
  FUNCTION(log, nvrtcGetProgramLog, (Program program, char* log))                                               \
  FUNCTION(cubin_size, nvrtcGetCUBINSize, (Program program, size_t* bytes))                                     \
  FUNCTION(cubin, nvrtcGetCUBIN, (Program program, char* cubin))

struct NvrtcFunctions {
#define FOUNDRY_MEMBER(member, name, parameters) NvrtcResult(*member) parameters = nullptr;
  FOUNDRY_NVRTC(FOUNDRY_MEMBER)
#undef FOUNDRY_MEMBER
};

namespace {

void* open_library(const std::string& path) {
  if (!path.empty()) return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  for (const char* name : kNames)
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL); library != nullptr) return library;
  return nullptr;
}

/// NVRTC opens it by its name alone, and finds it only where it is open already or in the loader's folders.
void open_builtins(const void* function, const std::string& version) {
  Dl_info where{};
  if (dladdr(function, &where) == 0 || where.dli_fname == nullptr) return;
  const std::string path = where.dli_fname;
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return;
  dlopen((path.substr(0, slash) + "/libnvrtc-builtins.so." + version).c_str(), RTLD_NOW | RTLD_LOCAL);
}

void find(NvrtcFunctions& functions, void* library) {
  const auto get = [&](auto& member, const char* name) {
    member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(dlsym(library, name));
    if (member == nullptr)
      throw ValueError("device: expected NVRTC " + std::to_string(kOldestMajor) +
                       " or later for cuda, found one without " + name + ": " + kHowToInstall);
  };
#define FOUNDRY_FIND(member, name, parameters) get(functions.member, #name);
  FOUNDRY_NVRTC(FOUNDRY_FIND)
#undef FOUNDRY_FIND
}

/// A program of NVRTC's, destroyed behind us.
struct Made {
  const NvrtcFunctions& functions;
  Program program = nullptr;
  ~Made() {
    if (program != nullptr) functions.destroy(&program);
  }
  std::string log() const {
    size_t bytes = 0;
    if (functions.log_size(program, &bytes) != 0 || bytes < 2) return {};
    std::string text(bytes, 0);
    if (functions.log(program, text.data()) != 0) return {};
    text.resize(bytes - 1);
    return text;
  }
};

}  // namespace

Compiler::Compiler() : functions_(std::make_unique<NvrtcFunctions>()) {}
Compiler::~Compiler() = default;

std::shared_ptr<Compiler> Compiler::open(const std::string& path) {
  void* library = open_library(path);  // and never closed: it has threads and state of its own
  if (library == nullptr)
    throw ValueError("device: expected NVIDIA's compiler NVRTC for cuda, found none" +
                     (path.empty() ? std::string() : " at " + path) + ": " + kHowToInstall);
  const std::shared_ptr<Compiler> compiler(new Compiler);
  find(*compiler->functions_, library);
  int n = 0;
  if (compiler->functions_->version(&compiler->major_, &compiler->minor_) != 0 || compiler->major_ < kOldestMajor)
    throw ValueError("device: expected NVRTC " + std::to_string(kOldestMajor) + " or later for cuda, found " +
                     compiler->version() + ": " + kHowToInstall);
  open_builtins(reinterpret_cast<const void*>(compiler->functions_->version), compiler->version());
  if (compiler->functions_->architecture_count(&n) == 0) {
    compiler->architectures_.resize(static_cast<size_t>(n));
    if (compiler->functions_->architectures(compiler->architectures_.data()) != 0) compiler->architectures_.clear();
    std::sort(compiler->architectures_.begin(), compiler->architectures_.end());
  }
  return compiler;
}

std::string Compiler::version() const { return std::to_string(major_) + "." + std::to_string(minor_); }

/// Code for a GPU runs on those of the same major number and no smaller minor one.
std::string Compiler::architecture(int major, int minor) const {
  int best = 0;
  for (const int one : architectures_)
    if (one / 10 == major && one % 10 <= minor) best = std::max(best, one);
  if (best == 0) return {};
  return "sm_" + std::to_string(best) + (best == 90 ? "a" : "");  // with what Hopper has alone
}

std::vector<std::byte> Compiler::compile(const std::string& name, const std::string& source,
                                         std::span<const Text> headers, const std::vector<std::string>& options,
                                         std::string* log) const {
  std::vector<const char*> texts, names, words;
  for (const Text& header : headers) texts.push_back(header.text), names.push_back(header.name);
  for (const std::string& option : options) words.push_back(option.c_str());
  Made made{*functions_};
  const auto fail = [&](const char* what) -> ConsistencyError {
    return ConsistencyError("cuda: expected " + name + " to " + what + ", NVRTC " + version() + " says: " + made.log());
  };
  if (functions_->create(&made.program, source.c_str(), name.c_str(), static_cast<int>(headers.size()), texts.data(),
                         names.data()) != 0)
    throw ConsistencyError("cuda: NVRTC takes no program");
  if (functions_->compile(made.program, static_cast<int>(words.size()), words.data()) != 0) throw fail("compile");
  if (log != nullptr) *log = made.log();
  size_t bytes = 0;
  if (functions_->cubin_size(made.program, &bytes) != 0 || bytes == 0) throw fail("become code");
  std::vector<std::byte> cubin(bytes);
  if (functions_->cubin(made.program, reinterpret_cast<char*>(cubin.data())) != 0) throw fail("become code");
  return cubin;
}

}  // namespace foundry::cuda
