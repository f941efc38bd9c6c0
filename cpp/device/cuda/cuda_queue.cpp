// Launches through NVIDIA's driver, in one stream. A step is put down launch by launch and goes to the card as a whole
// when it is submitted.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "device/cuda/cuda_device.h"
#include "device/cuda/gpu.h"
#include "device/cuda/kernels.h"
#include "device/cuda/launches.h"
#include "device/cuda/memory.h"
#include "device/cuda/steps.h"
#include "device/cuda/told.h"
#include "device/gpu/gpu_device.h"
#include "launch_arguments.h"

namespace foundry {
namespace cuda {
namespace {

constexpr uint32_t kStepsAhead = 3;
constexpr uint64_t kSpareBytes = uint64_t{256} << 20;  // for code of kernels, and what else the driver takes

static_assert(metal_cuda::kMostBuffers >= kMostSlots && metal_cuda::kValueBytes >= kMostValueBytes);

class CudaQueue final : public KernelQueue {
 public:
  CudaQueue(int index, const DeviceOptions& options)
      : gpu_(Gpu::open(index)),
        kernels_(Kernels::open(gpu_, options)),
        memory_(std::make_shared<Memory>(gpu_)),
        steps_(gpu_, memory_),
        launches_(gpu_),
        told_(gpu_, memory_) {
    const Gpu::Current current(*gpu_);
    gpu_->check(gpu_->driver().make_stream(&stream_, kStreamNonBlocking), "a stream");
    info_.name = "cuda";
    info_.isa = gpu_->properties().name;
    info_.system = kernels_->made_by();
    info_.max_tile_tokens = 1;
    info_.half_tiles = true;
    info_.steps_ahead = kStepsAhead;
    const uint64_t available = gpu_->free_bytes();
    info_.memory_bytes = available - std::min(available / 2, kSpareBytes);
  }
  ~CudaQueue() override {
    const Gpu::Current current(*gpu_);
    drop();
    steps_.settle();
    launches_.clear();
    gpu_->driver().destroy_stream(stream_);
  }
  CudaQueue(const CudaQueue&) = delete;

  const DeviceInfo& info() const override { return info_; }
  bool few_registers() const override { return false; }
  bool narrow_tiles() const override { return true; }
  bool wide_tiles() const override { return gpu_->properties().has_wide_tiles(); }

  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override { return memory_->allocate(bytes, kind); }
  bool unified() const override { return false; }
  std::byte* window(const Span&, const Span& room) override {
    steps_.settle();
    return room.host<std::byte>();
  }
  void upload(const Span& to, std::span<const std::byte> from) override {
    const Gpu::Current current(*gpu_);
    steps_.settle();
    if (from.empty()) return;
    gpu_->check(gpu_->driver().upload(address(to), from.data(), from.size(), stream_), "an upload", from.size());
    finish("an upload");  // the host may change its bytes then
  }
  void download(const Span& from, std::span<std::byte> to) override {
    const Gpu::Current current(*gpu_);
    steps_.settle();
    if (to.empty()) return;
    gpu_->check(gpu_->driver().download(to.data(), address(from), to.size(), stream_), "a download", to.size());
    finish("a download");
  }
  void copy(const Span& from, const Span& to, uint64_t bytes) override {
    const Gpu::Current current(*gpu_);
    steps_.settle();
    if (bytes != 0) gpu_->check(gpu_->driver().copy(address(to), address(from), bytes, stream_), "a copy", bytes);
  }
  uint64_t copied_bytes(uint64_t, uint64_t n) const override { return n; }
  std::unique_ptr<Buffer> wrap(const std::byte* data, uint64_t n) override {
    std::unique_ptr<Buffer> buffer = allocate(n, MemoryKind::device);
    upload({buffer.get(), 0}, {data, n});
    return buffer;
  }

  void begin() override {
    gpu_->check_alive();
    drop();
    memory_->encoding();
  }

  void dispatch(const Dispatch& one) override {
    const Function function = kernels_->get(one);
    step_.push_back({function, one.grid, one.threads, one.room_bytes, one.is_beside, {}});
    metal_cuda::Arguments& arguments = step_.back().arguments;
    for (uint32_t i = 0; i < one.n_slots; ++i) {
      const Dispatch::Slot& slot = one.slots[i];
      if (slot.buffer != nullptr) {
        arguments.buffers[i] = reinterpret_cast<void*>(slot.buffer->address() + slot.offset);
      } else if (slot.is_value) {
        std::memcpy(arguments.values[i], slot.bytes, slot.n_bytes);
      } else {
        arguments.buffers[i] = reinterpret_cast<void*>(told_.tell(slot.bytes, slot.n_bytes));
      }
    }
  }

  uint64_t submit() override {
    const Gpu::Current current(*gpu_);
    gpu_->check_alive();
    is_on_its_way_ = true;
    memory_->mirror(stream_);
    told_.send(stream_);
    launches_.run(step_, stream_);
    const uint64_t step = steps_.submit(stream_);
    told_.submitted(step, steps_.ended());
    is_on_its_way_ = false;
    step_.clear();
    return step;
  }
  /// What of it is on its way, where submit() failed, may still write: it ends, as a step that nobody asks for.
  void drop() noexcept override {
    const Gpu::Current current(*gpu_);
    if (is_on_its_way_) static_cast<void>(gpu_->driver().wait_for_stream(stream_));
    is_on_its_way_ = false;
    step_.clear();
    told_.dropped();
    memory_->abandoned();
  }
  void wait(uint64_t step) override { steps_.wait(step); }

 private:
  static Address address(const Span& of) { return of.buffer->address() + of.offset; }
  void finish(const char* what) { gpu_->check(gpu_->driver().wait_for_stream(stream_), what); }

  const std::shared_ptr<Gpu> gpu_;
  const std::shared_ptr<Kernels> kernels_;
  const std::shared_ptr<Memory> memory_;
  Steps steps_;
  Launches launches_;
  Told told_;
  Stream stream_ = nullptr;
  DeviceInfo info_;
  std::vector<Launch> step_;    // in hand
  bool is_on_its_way_ = false;  // some of it, maybe
};

/// "cuda" is the first, "cuda:1" the second; nothing: a name of another kind.
std::optional<int> index_of(std::string_view name) {
  constexpr std::string_view kName = "cuda";
  if (name == kName) return 0;
  if (!name.starts_with("cuda:")) return std::nullopt;
  name.remove_prefix(kName.size() + 1);
  int index = -1;
  const auto [end, failed] = std::from_chars(name.data(), name.data() + name.size(), index);
  if (failed != std::errc() || end != name.data() + name.size() || index < 0) return std::nullopt;
  return index;
}

}  // namespace
}  // namespace cuda

std::vector<GpuFound> cuda_gpus() {
  std::vector<GpuFound> found;
  for (const cuda::Properties& one : cuda::gpus())
    if (one.has_tiles())
      found.push_back({one.index == 0 ? "cuda" : "cuda:" + std::to_string(one.index), one.name, one.memory_bytes});
  return found;
}

bool cuda_compiler_available(const std::string& path) {
  try {
    cuda::Compiler::open(path);
    return true;
  } catch (const ValueError&) {
    return false;
  }
}

std::unique_ptr<Device> make_cuda_device(const DeviceOptions& options) {
  constexpr std::string_view kStrict = ":strict";
  std::string_view name = options.name;
  const bool strict = name.ends_with(kStrict);
  if (strict) name.remove_suffix(kStrict.size());
  const std::optional<int> index = cuda::index_of(name);
  if (!index) return nullptr;
  return make_gpu_device(std::make_unique<cuda::CudaQueue>(*index, options), strict);
}

}  // namespace foundry
