#include "device/metal/memory.h"

#include <algorithm>

#include "device/metal/faults.h"

// Residency sets are of macOS 15; every use is behind set_, which only that version makes.
#pragma clang diagnostic ignored "-Wunguarded-availability-new"

namespace foundry {

Residency::Residency(id<MTLDevice> device, id<MTLCommandQueue> queue) : queue_(queue), set_(nil) {
  if (![device respondsToSelector:@selector(newResidencySetWithDescriptor:error:)]) return;
  MTLResidencySetDescriptor* descriptor = [MTLResidencySetDescriptor new];
  descriptor.label = @"foundry";
  NSError* error = nil;
  id<MTLResidencySet> set = [device newResidencySetWithDescriptor:descriptor error:&error];
  if (set == nil) throw_compile_error("the residency set", "", error);
  [queue addResidencySet:set];
  set_ = set;
}

Residency::~Residency() {
  if (set_ != nil) [queue_ removeResidencySet:(id<MTLResidencySet>)set_];
}

void Residency::add(id<MTLBuffer> buffer) {
  const std::lock_guard lock(mutex_);
  live_.push_back(buffer);
  if (set_ == nil) return;
  [(id<MTLResidencySet>)set_ addAllocation:buffer];
  changed_ = true;
}

void Residency::retire(id<MTLBuffer> buffer) {
  const std::lock_guard lock(mutex_);
  // A step being encoded may read it too: it will be the next.
  if (submitted_ == ended_ && !encoding_)
    remove(buffer);
  else
    retired_.push_back({submitted_ + (encoding_ ? 1 : 0), buffer});
}

void Residency::remove(id<MTLBuffer> buffer) {
  const auto found = std::find(live_.begin(), live_.end(), buffer);
  if (found != live_.end()) *found = live_.back(), live_.pop_back();
  if (set_ == nil) return;
  [(id<MTLResidencySet>)set_ removeAllocation:buffer];
  changed_ = true;
}

void Residency::use(id<MTLComputeCommandEncoder> encoder) {
  const std::lock_guard lock(mutex_);
  encoding_ = true;
  if (set_ == nil && !live_.empty())
    [encoder useResources:live_.data() count:live_.size() usage:MTLResourceUsageRead | MTLResourceUsageWrite];
}

void Residency::commit(uint64_t step) {
  const std::lock_guard lock(mutex_);
  encoding_ = false;
  submitted_ = step;
  if (!changed_) return;
  [(id<MTLResidencySet>)set_ commit];
  changed_ = false;
}

void Residency::abandon() {
  const std::lock_guard lock(mutex_);
  encoding_ = false;
  sweep();
}

void Residency::ended(uint64_t step) {
  const std::lock_guard lock(mutex_);
  ended_ = std::max(ended_, step);
  sweep();
}

void Residency::sweep() {
  std::erase_if(retired_, [this](const Retired& one) {
    if (one.step > ended_) return false;
    remove(one.buffer);
    return true;
  });
}

MetalBuffer::MetalBuffer(std::shared_ptr<Residency> residency, id<MTLBuffer> buffer, uint64_t offset, uint64_t bytes,
                         MemoryKind kind)
    : residency_(std::move(residency)),
      buffer_(buffer),
      offset_(offset),
      bytes_(bytes),
      address_(buffer.gpuAddress + offset),
      contents_(static_cast<std::byte*>(buffer.contents) + offset),
      kind_(kind) {
  residency_->add(buffer_);
}

MetalBuffer::~MetalBuffer() { residency_->retire(buffer_); }

}  // namespace foundry
