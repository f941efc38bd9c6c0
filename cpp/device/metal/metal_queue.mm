// Launches through Metal: one command buffer a step, its dispatches concurrent but for the barriers between them.
#import <Metal/Metal.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <string>

#include "base/error.h"
#include "base/lock_order.h"
#include "device/gpu/gpu_device.h"
#include "device/metal/faults.h"
#include "device/metal/memory.h"
#include "device/metal/metal_device.h"
#include "device/metal/pipelines.h"
#include "device/unified.h"

namespace foundry {
namespace {

constexpr uint32_t kStepsAhead = 3;
constexpr uint64_t kAlign = 16;          // of kernels' loads
constexpr MTLResourceOptions kOptions =  // order is kept by barriers and the fence
    MTLResourceStorageModeShared | MTLResourceHazardTrackingModeUntracked;

bool fits(id<MTLDevice> device) { return device != nil && [device supportsFamily:MTLGPUFamilyMetal3]; }

class MetalQueue final : public Unified<KernelQueue> {
 public:
  explicit MetalQueue(id<MTLDevice> device, const std::string& cache_dir)
      : device_(device),
        queue_([device newCommandQueue]),
        fence_([device newFence]),
        pipelines_(device, cache_dir),
        residency_(std::make_shared<Residency>(device, queue_)) {
    info_.name = "metal";
    info_.isa = device.name.UTF8String;
    info_.max_tile_tokens = 1;
    info_.half_tiles = true;
    info_.steps_ahead = kStepsAhead;
    info_.memory_bytes = device.recommendedMaxWorkingSetSize;
  }

  ~MetalQueue() override {
    @autoreleasepool {
      begin();
      for (const Step& step : under_way_) [step.commands waitUntilCompleted];
      residency_->ended(submitted_);
      pipelines_.save();
    }
  }

  const DeviceInfo& info() const override { return info_; }

  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override {
    @autoreleasepool {
      const uint64_t length = bytes == 0 ? kAlign : bytes;
      id<MTLBuffer> buffer =
          length > device_.maxBufferLength ? nil : [device_ newBufferWithLength:length options:kOptions];
      if (buffer == nil) throw_short_of_memory(device_, length);
      return std::make_unique<MetalBuffer>(residency_, buffer, 0, bytes, kind);
    }
  }

  uint64_t copied_bytes(uint64_t place, uint64_t n) const override { return place % kAlign == 0 ? 0 : n; }

  std::unique_ptr<Buffer> wrap(const std::byte* data, uint64_t n) override {
    @autoreleasepool {
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
      return std::make_unique<MetalBuffer>(residency_, buffer, at - begin, n, MemoryKind::device);
    }
  }

  void begin() override {
    if (encoder_ == nil) return;
    [encoder_ endEncoding];
    encoder_ = nil, commands_ = nil;
    residency_->abandon();
  }

  void dispatch(const Dispatch& launch) override {
    @autoreleasepool {
      id<MTLComputePipelineState> pipeline = pipelines_.get(launch);
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
    }
  }

  uint64_t submit() override {
    @autoreleasepool {
      const std::lock_guard lock(mutex_);
      ++submitted_;
      if (encoder_ == nil) return submitted_;
      [encoder_ updateFence:fence_];
      [encoder_ endEncoding];
      residency_->commit(submitted_);
      [commands_ commit];
      under_way_.push_back({submitted_, commands_});
      encoder_ = nil, commands_ = nil;
      pipelines_.save();
      return submitted_;
    }
  }

  void wait(uint64_t step) override {
    @autoreleasepool {
      Step first;
      while (first_before(step, first)) {
        [first.commands waitUntilCompleted];
        ended(first);
      }
      const std::lock_guard lock(mutex_);
      if (failed_ != nil && step >= failed_from_ && step <= failed_to_) throw_fault(failed_);
    }
  }

 protected:
  std::byte* view(const Span& of) const override {
    return static_cast<const MetalBuffer*>(of.buffer)->contents() + of.offset;
  }
  void settle() noexcept override {
    uint64_t newest = 0;
    {
      const std::lock_guard lock(mutex_);
      newest = submitted_;
    }
    try {
      wait(newest);
    } catch (const Error&) {  // whoever wanted that step's results is told
    }
  }

 private:
  struct Step {
    uint64_t number;
    id<MTLCommandBuffer> commands;
  };

  bool first_before(uint64_t step, Step& first) {
    const std::lock_guard lock(mutex_);
    if (under_way_.empty() || under_way_.front().number > step) return false;
    first = under_way_.front();
    return true;
  }

  /// Threads may wait for the same step: the first to see it ended takes it off. What came behind one that failed computed on
  /// nothing, so those have failed with it.
  void ended(const Step& step) {
    const std::lock_guard lock(mutex_);
    if (under_way_.empty() || under_way_.front().number != step.number) return;
    under_way_.pop_front();
    residency_->ended(step.number);
    if (step.commands.status != MTLCommandBufferStatusError || step.number <= failed_to_) return;
    failed_ = step.commands, failed_from_ = step.number, failed_to_ = submitted_;
  }

  void open() {
    commands_ = [queue_ commandBuffer];
    if (commands_ == nil) throw ConsistencyError("metal: no command buffer");
    encoder_ = [commands_ computeCommandEncoderWithDispatchType:MTLDispatchTypeConcurrent];
    if (encoder_ == nil) throw ConsistencyError("metal: no command encoder");
    [encoder_ waitForFence:fence_];
    residency_->use(encoder_);
  }

  id<MTLDevice> device_;
  id<MTLCommandQueue> queue_;
  id<MTLFence> fence_;  // a step begins when the one before has written
  Pipelines pipelines_;
  std::shared_ptr<Residency> residency_;
  DeviceInfo info_;
  id<MTLCommandBuffer> commands_ = nil;  // of the step being encoded
  id<MTLComputeCommandEncoder> encoder_ = nil;
  RankedMutex mutex_{LockRank::gpu_queue};  // what follows: one thread encodes, any may wait
  std::deque<Step> under_way_;
  uint64_t submitted_ = 0, failed_from_ = 0, failed_to_ = 0;
  id<MTLCommandBuffer> failed_ = nil;
};

}  // namespace

bool metal_available() {
  @autoreleasepool {
    return fits(MTLCreateSystemDefaultDevice());
  }
}

std::unique_ptr<Device> make_metal_device(const DeviceOptions& options, bool strict) {
  @autoreleasepool {
    id<MTLDevice> device = MTLCreateSystemDefaultDevice();
    if (!fits(device)) throw ValueError("device: expected a GPU with Metal 3 for metal, found none");
    return make_gpu_device(std::make_unique<MetalQueue>(device, options.cache_dir), strict);
  }
}

}  // namespace foundry
