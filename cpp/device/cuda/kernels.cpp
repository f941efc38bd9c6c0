#include "device/cuda/kernels.h"

#include <mutex>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "device/cuda/kernel_source.h"

namespace foundry::cuda {
namespace {

int driver_version(const Gpu& gpu) {
  int version = 0;  // 13000 for CUDA 13.0
  gpu.driver().version(&version);
  return version;
}

std::string architecture_of(const Gpu& gpu, const Compiler& compiler) {
  const Properties& of = gpu.properties();
  const int driver = driver_version(gpu) / 1000;
  if (compiler.major() > driver)  // it would load none of its code
    throw ValueError("device: expected NVRTC " + std::to_string(driver) + " or older for this driver of CUDA " +
                     std::to_string(driver) + ", found " + compiler.version() + ": pip install 'foundry-llm[cuda" +
                     std::to_string(driver) + "]', or a newer driver");
  std::string name = compiler.architecture(of.major, of.minor);
  if (name.empty())
    throw ValueError("device: expected an NVRTC that knows " + of.name + " of compute capability " +
                     std::to_string(of.major) + "." + std::to_string(of.minor) + ", found " + compiler.version() +
                     ": pip install -U 'foundry-llm[cuda]'");
  return name;
}

std::string kind_of(const Gpu& gpu, const Compiler& compiler, const std::string& architecture) {
  return architecture + "-" + gpu.properties().name + "-" + std::to_string(driver_version(gpu)) + "-nvrtc" +
         compiler.version() + "-" + std::to_string(kernel_source_hash());
}

/// Of all that the compiler is told beside the headers.
std::string told(const KernelProgram& program, const std::vector<std::string>& options) {
  uint64_t hash = hash64(std::as_bytes(std::span(program.source)), 0);
  for (const std::string& option : options) hash = hash64(std::as_bytes(std::span(option)), hash);
  return std::to_string(hash);
}

}  // namespace

std::shared_ptr<Kernels> Kernels::open(const std::shared_ptr<Gpu>& gpu, const DeviceOptions& options) {
  static std::mutex mutex;
  static auto& opened = *new std::map<std::tuple<int, std::string, std::string>, std::shared_ptr<Kernels>>;
  const std::lock_guard lock(mutex);
  std::shared_ptr<Kernels>& kernels = opened[{gpu->properties().index, options.compiler, options.cache_dir}];
  if (kernels == nullptr) kernels = std::shared_ptr<Kernels>(new Kernels(gpu, options));
  return kernels;
}

Kernels::Kernels(std::shared_ptr<Gpu> gpu, const DeviceOptions& options)
    : gpu_(std::move(gpu)),
      compiler_(Compiler::open(options.compiler)),
      architecture_(architecture_of(*gpu_, *compiler_)),
      cubins_(options.cache_dir, kind_of(*gpu_, *compiler_, architecture_)) {}

std::string Kernels::made_by() const { return architecture_ + ", NVRTC " + compiler_->version(); }

Function Kernels::get(const Dispatch& launch) {
  const Key key{launch.kernel, launch.constants};
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = known_.find(key); found != known_.end()) return found->second;
  }
  const Function made = make(launch);  // others' launches go on meanwhile
  const std::lock_guard lock(mutex_);
  return known_.try_emplace(key, made).first->second;
}

/// Kept code that the driver does not take is as none. A function is told what it may have of shared memory.
Function Kernels::make(const Dispatch& launch) {
  const Gpu::Current current(*gpu_);
  const KernelProgram program = program_of(launch);
  std::vector<std::string> options = program.options;
  options.push_back("--gpu-architecture=" + architecture_);
  const std::string name =
      std::string(launch.kernel.data()) + "-" + std::to_string(launch.constants) + "-" + told(program, options);
  const Driver& driver = gpu_->driver();
  Module module = nullptr;
  Function function = nullptr;
  const auto kept = cubins_.load(name);
  if (!kept || driver.load_module(&module, kept->data()) != kSuccess ||
      driver.function(&function, module, program.entry.c_str()) != kSuccess) {
    gpu_->check_alive();
    const std::vector<std::byte> cubin = compiler_->compile(program.file, program.source, kernel_headers(), options);
    gpu_->check(driver.load_module(&module, cubin.data()), name.c_str(), cubin.size());
    cubins_.save(name, cubin);
    gpu_->check(driver.function(&function, module, program.entry.c_str()), program.entry.c_str());
  }
  if (launch.room_bytes != 0)
    gpu_->check(driver.set_function(function, kMostSharedBytes, static_cast<int>(launch.room_bytes)), name.c_str());
  return function;
}

}  // namespace foundry::cuda
