#include "device/metal/pipelines.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/hash.h"
#include "device/metal/faults.h"
#include "device/metal/kernel_source.h"
#include "device/metal/macos.h"
#include "device/metal/newer_metal.h"

namespace foundry {
namespace {

constexpr const char* kArchive = "kernels-";
constexpr std::chrono::hours kOldAfter{24 * 14};

NSString* string_of(const std::string& text) { return [NSString stringWithUTF8String:text.c_str()]; }

/// The newest language of the system, as far as the kernels have been written for it. Infinities and the order of sums
/// are meant; fast:: says where they are not.
MTLCompileOptions* compile_options() {
  constexpr auto kLanguage3_2 = static_cast<MTLLanguageVersion>((3 << 16) + 2);  // of macOS 15
  constexpr NSInteger kSafeMath = 0;                                             // MTLMathModeSafe, of macOS 15
  MTLCompileOptions* options = [MTLCompileOptions new];
  options.languageVersion = macos_version() >= 15 ? kLanguage3_2 : MTLLanguageVersion3_1;
  if ([options respondsToSelector:@selector(setMathMode:)])
    [(id<FoundryMTLCompileOptions>)options setMathMode:kSafeMath];
  else
    options.fastMathEnabled = NO;
  return options;
}

/// One archive for each GPU, build of the system and state of the kernels.
std::string archive_name(id<MTLDevice> device) {
  uint64_t hash = 0;
  for (const KernelSource& source : kernel_sources()) hash = hash64(std::as_bytes(std::span(source.text)), hash);
  std::string name = kArchive;
  for (const char* c = device.name.UTF8String; *c != 0; ++c) {
    const bool plain = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');
    name += plain ? *c : '-';
  }
  return name + "-" + macos_build() + "-" + std::to_string(hash) + ".bin";
}

/// Of other systems, other states of the kernels and processes that ended while they wrote: nobody comes for them any
/// more.
void remove_old(const std::string& folder, const std::string& kept) {
  namespace fs = std::filesystem;
  const auto old = fs::file_time_type::clock::now() - kOldAfter;
  std::error_code failed;
  for (fs::directory_iterator it(folder, failed), end; !failed && it != end; it.increment(failed)) {
    std::error_code ignored;  // another process may have been quicker
    const std::string name = it->path().filename().string();
    if (name.starts_with(kArchive) && name != kept && fs::last_write_time(it->path(), ignored) < old && !ignored)
      fs::remove(it->path(), ignored);
  }
}

id<MTLLibrary> open_library(id<MTLDevice> device, const std::string& path) {
  if (path.empty() || !std::filesystem::exists(path)) return nil;
  NSError* error = nil;
  return [device newLibraryWithURL:[NSURL fileURLWithPath:string_of(path)] error:&error];
}

id<MTLBinaryArchive> open_archive(id<MTLDevice> device, const std::string& path) {
  MTLBinaryArchiveDescriptor* descriptor = [MTLBinaryArchiveDescriptor new];
  NSError* error = nil;
  if (std::filesystem::exists(path)) {
    descriptor.url = [NSURL fileURLWithPath:string_of(path)];
    id<MTLBinaryArchive> kept = [device newBinaryArchiveWithDescriptor:descriptor error:&error];
    if (kept != nil) return kept;  // else it is damaged, or another system's: made anew
    descriptor.url = nil;
  }
  return [device newBinaryArchiveWithDescriptor:descriptor error:&error];
}

}  // namespace

Pipelines::Pipelines(id<MTLDevice> device, const DeviceOptions& options)
    : device_(device), built_(open_library(device, options.kernel_library)), archive_(nil) {
  const std::string& cache_dir = options.cache_dir;
  if (cache_dir.empty()) return;
  std::error_code failed;
  std::filesystem::create_directories(cache_dir, failed);
  if (failed) return;
  const std::string name = archive_name(device);
  archive_path_ = cache_dir + "/" + name;
  remove_old(cache_dir, name);
  archive_ = open_archive(device, archive_path_);
}

id<MTLLibrary> Pipelines::library(size_t file, const std::string& part) {
  const KernelSource& source = kernel_sources()[file];
  id<MTLLibrary> __strong& known = libraries_[{file, source.has_parts ? part : std::string()}];
  if (known != nil) return known;
  std::string text(source.text);
  if (source.has_parts) text = "#define FOUNDRY_PART\n#define FOUNDRY_PART_" + part + " ,\n" + text;
  MTLCompileOptions* options = compile_options();
  NSError* error = nil;
  known = [device_ newLibraryWithSource:string_of(text) options:options error:&error];
  if (known == nil) throw_compile_error("expected to compile", source.name, error);
  return known;
}

id<MTLFunction> Pipelines::function(const Dispatch& launch) {
  MTLFunctionConstantValues* constants = [MTLFunctionConstantValues new];
  for (uint32_t i = 0; i < launch.n_constants; ++i) {
    const bool value = (launch.constants >> i & 1) != 0;
    [constants setConstantValue:&value type:MTLDataTypeBool atIndex:i];
  }
  const std::string base = "\"" + launch.base(), part = launch.part().empty() ? "rest" : launch.part();
  NSString* name = string_of(launch.kernel.data());
  NSError* error = nil;
  if (built_ != nil) {
    id<MTLFunction> found = [built_ newFunctionWithName:name constantValues:constants error:&error];
    if (found != nil) return found;
  }
  for (size_t file = 0; file < kernel_sources().size(); ++file) {
    if (kernel_sources()[file].text.find(base) == std::string_view::npos) continue;
    id<MTLLibrary> from = library(file, part);
    id<MTLFunction> found = [from newFunctionWithName:name constantValues:constants error:&error];
    if (found != nil) return found;
  }
  throw_compile_error("expected a kernel", launch.kernel.data(), error);
}

id<MTLComputePipelineState> Pipelines::get(const Dispatch& launch) {
  id<MTLComputePipelineState> __strong& known = made_[{launch.kernel, launch.constants}];
  if (known != nil) return known;
  MTLComputePipelineDescriptor* descriptor = [MTLComputePipelineDescriptor new];
  descriptor.computeFunction = function(launch);
  descriptor.label = string_of(launch.kernel.data());
  descriptor.maxTotalThreadsPerThreadgroup = launch.threads;  // more registers a thread than where 1024 must fit
  NSError* error = nil;
  if (archive_ != nil) {
    descriptor.binaryArchives = [NSArray arrayWithObject:archive_];
    known = [device_ newComputePipelineStateWithDescriptor:descriptor
                                                   options:MTLPipelineOptionFailOnBinaryArchiveMiss
                                                reflection:nullptr
                                                     error:&error];
    if (known != nil) return known;
    changed_ = [archive_ addComputePipelineFunctionsWithDescriptor:descriptor error:&error] || changed_;
  }
  known = [device_ newComputePipelineStateWithDescriptor:descriptor
                                                 options:MTLPipelineOptionNone
                                              reflection:nullptr
                                                   error:&error];
  if (known == nil) throw_compile_error("expected a pipeline of", launch.kernel.data(), error);
  return known;
}

void Pipelines::save() {
  if (!changed_) return;
  changed_ = false;
  // Of this process and object alone: others may save the same at this moment, and the last whole one stays.
  static std::atomic<uint64_t> number{0};
  const std::string fresh = archive_path_ + "." + std::to_string(getpid()) + "-" + std::to_string(++number);
  NSError* error = nil;
  std::error_code failed;
  const bool written = [archive_ serializeToURL:[NSURL fileURLWithPath:string_of(fresh)] error:&error];
  if (written) std::filesystem::rename(fresh, archive_path_, failed);
  if (!written || failed) std::filesystem::remove(fresh, failed);
}

}  // namespace foundry
