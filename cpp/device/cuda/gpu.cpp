#include "device/cuda/gpu.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>

#include "base/error.h"

namespace foundry::cuda {
namespace {

constexpr const char* kWhereDriversAre = "https://www.nvidia.com/drivers";

/// Reports after which the driver refuses all that follows in this process (CUresult: "must be terminated and
/// relaunched"), and those that say that it does so already, as in a child of a fork.
bool is_end(Result result) {
  constexpr Result kEnds[] = {3, 4, 201, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999};
  return std::find(std::begin(kEnds), std::end(kEnds), result) != std::end(kEnds);
}

Properties properties_of(const Driver& driver, int index) {
  Properties found;
  found.index = index;
  Device device = 0;
  char name[256] = {};
  size_t bytes = 0;
  if (driver.device(&device, index) != kSuccess) return found;
  if (driver.device_name(name, sizeof name - 1, device) == kSuccess) found.name = name;
  if (driver.device_memory(&bytes, device) == kSuccess) found.memory_bytes = bytes;
  driver.device_attribute(&found.major, kCapabilityMajor, device);
  driver.device_attribute(&found.minor, kCapabilityMinor, device);
  return found;
}

}  // namespace

std::vector<Properties> gpus() {
  std::vector<Properties> found;
  const Driver* known = cuda::driver();
  int n = 0;
  if (known == nullptr || known->device_count(&n) != kSuccess) return found;
  for (int i = 0; i < n; ++i) found.push_back(properties_of(*known, i));
  return found;
}

std::shared_ptr<Gpu> Gpu::open(int index) {
  static std::mutex mutex;
  static auto& opened = *new std::map<int, std::shared_ptr<Gpu>>;  // threads may still step as the process ends
  const std::lock_guard lock(mutex);
  std::shared_ptr<Gpu>& gpu = opened[index];
  if (gpu != nullptr) {
    gpu->check_alive();
    return gpu;
  }
  std::string why;
  const Driver* known = cuda::driver(&why);
  if (known == nullptr)
    throw ValueError("device: expected an NVIDIA GPU and its driver for cuda, found " + why + "; drivers are at " +
                     kWhereDriversAre + ", and without a GPU device cpu is the one");
  const std::vector<Properties> all = gpus();
  if (all.empty())
    throw ValueError("device: expected an NVIDIA GPU for cuda, found a driver and no GPU (`nvidia-smi -L` lists them)");
  if (static_cast<size_t>(index) >= all.size())
    throw ValueError("device: expected cuda:0" +
                     (all.size() == 1 ? std::string() : " to cuda:" + std::to_string(all.size() - 1)) +
                     ", found cuda:" + std::to_string(index));
  const Properties& one = all[static_cast<size_t>(index)];
  if (!one.has_tiles())
    throw ValueError("device: expected a GPU of compute capability 8.0 (Ampere, 2020) or later for cuda, found " +
                     one.name + " of " + std::to_string(one.major) + "." + std::to_string(one.minor) +
                     ", which has no m16n8k16 matrix products; use device cpu");
  Device device = 0;
  Context context = nullptr;
  Result result = known->device(&device, index);
  if (result == kSuccess) result = known->retain_context(&context, device);
  if (result == kOutOfMemory) throw MemoryLimitError("cuda: the GPU has no memory for a context", 0, 0);
  if (result != kSuccess)
    throw ValueError("device: expected a context on " + one.name + ", found " + known->name_of(result));
  gpu = std::shared_ptr<Gpu>(new Gpu(*known, one, context));
  return gpu;
}

Gpu::Gpu(const Driver& driver, Properties properties, Context context)
    : driver_(driver), properties_(std::move(properties)), context_(context) {}

Gpu::Current::Current(const Gpu& gpu) : gpu_(gpu) {
  Context now = nullptr;
  if (gpu.driver_.current_context(&now) == kSuccess && now == gpu.context_) return;
  pushed_ = gpu.driver_.push_context(gpu.context_) == kSuccess;
}

Gpu::Current::~Current() {
  Context before = nullptr;
  if (pushed_) gpu_.driver_.pop_context(&before);
}

void Gpu::check(Result result, const char* what, uint64_t bytes) {
  if (result == kSuccess) return;
  if (result == kOutOfMemory) {
    const uint64_t available = free_bytes();
    throw MemoryLimitError("cuda: " + std::string(what) + ": needed " + std::to_string(bytes) +
                               " bytes of the GPU's memory, available " + std::to_string(available),
                           bytes, available);
  }
  if (is_end(result)) {
    Result none = kSuccess;
    lost_.compare_exchange_strong(none, result);
    throw_lost();
  }
  throw ConsistencyError("cuda: " + std::string(what) + ": " + driver_.name_of(result));
}

void Gpu::check_alive() const {
  if (is_lost()) throw_lost();
}

void Gpu::throw_lost() const {
  throw ConsistencyError("cuda: the GPU context is lost: " + driver_.name_of(lost_) + " on " + properties_.name +
                         "; restart the process");
}

uint64_t Gpu::free_bytes() const {
  const Current current(*this);
  size_t available = 0, total = 0;
  return driver_.memory_info(&available, &total) == kSuccess ? available : 0;
}

}  // namespace foundry::cuda
