// Launches through Metal: a step is a command buffer, or several where it is long, whose dispatches are concurrent but
// for the barriers between them.
#import <Metal/Metal.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "device/gpu/gpu_device.h"
#include "device/metal/faults.h"
#include "device/metal/find_device.h"
#include "device/metal/m1_time.h"
#include "device/metal/macos.h"
#include "device/metal/memory.h"
#include "device/metal/metal_device.h"
#include "device/metal/pipelines.h"
#include "device/metal/pool.h"
#include "device/metal/steps.h"
#include "device/metal/trusted.h"
#include "device/unified.h"

namespace foundry {
namespace {

constexpr uint32_t kStepsAhead = 3;
constexpr uint64_t kAlign = 16;          // of kernels' loads
constexpr MTLResourceOptions kOptions =  // order is kept by barriers and the fence
    MTLResourceStorageModeShared | MTLResourceHazardTrackingModeUntracked;

class MetalQueue final : public Unified<KernelQueue> {
 public:
  explicit MetalQueue(id<MTLDevice> device, const DeviceOptions& options)
      : device_(device),
        pipelines_(device, options),
        residency_(std::make_shared<Residency>(device)),
        steps_(residency_) {
    new_queue();
    info_.name = "metal";
    info_.isa = device.name.UTF8String;
    info_.system = macos_build();
    info_.max_tile_tokens = 1;
    info_.half_tiles = true;
    info_.steps_ahead = kStepsAhead;
    info_.memory_bytes = device.recommendedMaxWorkingSetSize;
  }

  ~MetalQueue() override {
    @autoreleasepool {
      begin();
      steps_.settle();
      residency_->serve(nil);
      pipelines_.save();
    }
  }

  const DeviceInfo& info() const override { return info_; }

  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override {
    return in_pool([&]() -> std::unique_ptr<Buffer> {
      const uint64_t length = bytes == 0 ? kAlign : bytes;
      id<MTLBuffer> buffer =
          length > device_.maxBufferLength ? nil : [device_ newBufferWithLength:length options:kOptions];
      if (buffer == nil) throw_short_of_memory(device_, length);
      return std::make_unique<MetalBuffer>(residency_, buffer, 0, bytes, kind, true);
    });
  }

  uint64_t copied_bytes(uint64_t place, uint64_t n) const override { return place % kAlign == 0 ? 0 : n; }

  std::unique_ptr<Buffer> wrap(const std::byte* data, uint64_t n) override {
    return in_pool([&]() -> std::unique_ptr<Buffer> {
      if (copied_bytes(reinterpret_cast<uint64_t>(data), n) != 0) {
        std::unique_ptr<Buffer> own = allocate(n, MemoryKind::device);
        std::memcpy(view({own.get(), 0}), data, n);  // new: no step knows it
        return own;
      }
      const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));  // a mapping begins and ends with one
      const uint64_t at = reinterpret_cast<uint64_t>(data), begin = at / page * page;
      const uint64_t length = (at + n - begin + page - 1) / page * page;
      id<MTLBuffer> buffer = length > device_.maxBufferLength
                                 ? nil
                                 : [device_ newBufferWithBytesNoCopy:reinterpret_cast<void*>(begin)
                                                              length:length
                                                             options:kOptions
                                                         deallocator:nil];
      if (buffer == nil) throw_short_of_memory(device_, length);
      return std::make_unique<MetalBuffer>(residency_, buffer, at - begin, n, MemoryKind::device, false);
    });
  }

  void begin() override { drop(); }

  void drop() noexcept override {
    @autoreleasepool {
      if (encoder_ != nil) [encoder_ endEncoding];
      encoder_ = nil, commands_ = nil;
      if (!parts_.empty()) {  // on their way, and may still write: a step that nobody asks for
        steps_.submitted(std::move(parts_), queue_number_);
        parts_.clear();
        steps_.settle();
      }
      residency_->abandon();
    }
  }

  void dispatch(const Dispatch& launch) override {
    in_pool([&] {
      id<MTLComputePipelineState> pipeline = pipelines_.get(launch);
      const double seconds = m1_seconds(launch.work);
      if (encoder_ != nil && seconds_ + seconds > kLongestOnM1) cut();
      const bool first = encoder_ == nil;
      if (first) open();
      if (!first && !launch.is_beside) [encoder_ memoryBarrierWithScope:MTLBarrierScopeBuffers];
      [encoder_ setComputePipelineState:pipeline];
      for (uint32_t i = 0; i < launch.n_slots; ++i) {
        const Dispatch::Slot& slot = launch.slots[i];
        if (slot.buffer == nullptr) {
          [encoder_ setBytes:slot.bytes length:slot.n_bytes atIndex:i];
          continue;
        }
        const auto& buffer = static_cast<const MetalBuffer&>(*slot.buffer);
        [encoder_ setBuffer:buffer.buffer() offset:buffer.offset() + slot.offset atIndex:i];
      }
      [encoder_ dispatchThreadgroups:MTLSizeMake(launch.grid.x, launch.grid.y, launch.grid.z)
               threadsPerThreadgroup:MTLSizeMake(launch.threads, 1, 1)];
      seconds_ += seconds;
    });
  }

  uint64_t submit() override {
    @autoreleasepool {
      if (encoder_ != nil) cut();
      const uint64_t step = steps_.submitted(std::move(parts_), queue_number_);
      parts_.clear();
      pipelines_.save();
      return step;
    }
  }

  void wait(uint64_t step) override {
    in_pool([&] { steps_.wait(step); });
  }

 protected:
  std::byte* view(const Span& of) const override {
    return static_cast<const MetalBuffer*>(of.buffer)->contents() + of.offset;
  }
  void settle() noexcept override {
    @autoreleasepool {
      steps_.settle();
    }
  }

 private:
  void new_queue() {
    queue_ = [device_ newCommandQueue];
    fence_ = [device_ newFence];
    if (queue_ == nil || fence_ == nil) throw ConsistencyError("metal: no command queue or fence");
    is_fence_updated_ = false;
    residency_->serve(queue_);
  }

  void open() {
    if (parts_.empty() && steps_.failed(queue_number_)) {
      steps_.settle();  // on the old queue; all that is left there has failed
      new_queue();
      ++queue_number_;
    }
    commands_ = [queue_ commandBuffer];
    if (commands_ == nil) throw ConsistencyError("metal: no command buffer");
    encoder_ = [commands_ computeCommandEncoderWithDispatchType:MTLDispatchTypeConcurrent];
    if (encoder_ == nil) throw ConsistencyError("metal: no command encoder");
    if (is_fence_updated_) [encoder_ waitForFence:fence_];
    residency_->use(encoder_);
    seconds_ = 0;
  }

  /// The command buffer ends here and is on its way; what follows waits for it.
  void cut() {
    [encoder_ updateFence:fence_];
    is_fence_updated_ = true;
    [encoder_ endEncoding];
    residency_->commit();
    [commands_ commit];
    parts_.push_back(commands_);
    encoder_ = nil, commands_ = nil;
  }

  id<MTLDevice> device_;
  id<MTLCommandQueue> queue_ = nil;
  id<MTLFence> fence_ = nil;  // a command buffer begins when the one before has written
  bool is_fence_updated_ = false;
  uint64_t queue_number_ = 0;
  Pipelines pipelines_;
  std::shared_ptr<Residency> residency_;
  Steps steps_;
  DeviceInfo info_;
  // Of the step being encoded.
  Steps::Parts parts_;
  id<MTLCommandBuffer> commands_ = nil;
  id<MTLComputeCommandEncoder> encoder_ = nil;
  double seconds_ = 0;  // of an M1, for this command buffer
};

}  // namespace

bool metal_available() {
  @autoreleasepool {
    return find_device(Families::apple7) != nil;
  }
}

bool metal_trusted() {
  @autoreleasepool {
    id<MTLDevice> device = find_device(Families::apple7);
    return device != nil && trusted_families().contains(apple_family(device));
  }
}

std::unique_ptr<Device> make_metal_device(const DeviceOptions& options) {
  constexpr std::string_view kStrict = ":strict";
  std::string_view name = options.name;
  const bool strict = name.ends_with(kStrict);
  if (strict) name.remove_suffix(kStrict.size());
  if (name != "metal" && name != "metal:any") return nullptr;
  return in_pool([&]() -> std::unique_ptr<Device> {
    const bool any = name == "metal:any";
    std::string found;
    id<MTLDevice> device = find_device(any ? Families::any_apple : Families::apple7, &found);
    if (device == nil)
      throw ValueError(
          "device: expected " +
          std::string(any ? "a GPU of Apple's for metal:any"
                          : "an Apple GPU of family Apple7 (M1) or later for metal, or another of Apple's, "
                            "not tried, by the name metal:any") +
          "; found " + found);
    return make_gpu_device(std::make_unique<MetalQueue>(device, options), strict);
  });
}

}  // namespace foundry
