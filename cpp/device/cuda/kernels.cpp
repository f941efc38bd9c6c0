#include "device/cuda/kernels.h"

#include "base/error.h"
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

}  // namespace

Kernels::Kernels(std::shared_ptr<Gpu> gpu, const DeviceOptions& options)
    : gpu_(std::move(gpu)),
      compiler_(Compiler::open(options.compiler)),
      architecture_(architecture_of(*gpu_, *compiler_)),
      cubins_(options.cache_dir, kind_of(*gpu_, *compiler_, architecture_)) {}

Kernels::~Kernels() {
  const Gpu::Current current(*gpu_);
  for (const Module module : modules_) gpu_->driver().unload_module(module);
}

std::string Kernels::made_by() const { return architecture_ + ", NVRTC " + compiler_->version(); }

Function Kernels::get(const Dispatch& launch) {
  Function& known = known_[{launch.kernel, launch.constants}];
  if (known != nullptr) return known;
  const std::string name = std::string(launch.kernel.data()) + "-" + std::to_string(launch.constants);
  const std::string entry = program_of(launch).entry;
  Function found = nullptr;
  gpu_->check(gpu_->driver().function(&found, module_of(launch, name), entry.c_str()), entry.c_str());
  return known = found;
}

/// Kept code that the driver does not take is as none.
Module Kernels::module_of(const Dispatch& launch, const std::string& name) {
  modules_.reserve(modules_.size() + 1);
  Module module = nullptr;
  if (const auto kept = cubins_.load(name); kept && gpu_->driver().load_module(&module, kept->data()) == kSuccess) {
    modules_.push_back(module);
    return module;
  }
  gpu_->check_alive();
  const KernelProgram program = program_of(launch);
  std::vector<std::string> options = program.options;
  options.push_back("--gpu-architecture=" + architecture_);
  const std::vector<std::byte> cubin = compiler_->compile(program.file, program.source, kernel_headers(), options);
  gpu_->check(gpu_->driver().load_module(&module, cubin.data()), name.c_str(), cubin.size());
  modules_.push_back(module);
  cubins_.save(name, cubin);
  return module;
}

}  // namespace foundry::cuda
