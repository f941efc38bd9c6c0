#include "device/metal/memory.h"

#include <algorithm>

namespace foundry {
namespace {

/// nil where the system has none, or gives none.
id<FoundryMTLResidencySet> residency_set(id<MTLDevice> device) {
  const Class described = NSClassFromString(@"MTLResidencySetDescriptor");
  if (described == nil || ![device respondsToSelector:@selector(newResidencySetWithDescriptor:error:)]) return nil;
  id<FoundryMTLResidencySetDescriptor> descriptor = [described new];
  [descriptor setLabel:@"foundry"];
  NSError* error = nil;
  return [(id<FoundryMTLDevice>)device newResidencySetWithDescriptor:descriptor error:&error];
}

void erase(std::vector<id<MTLResource>>& from, id<MTLBuffer> buffer) {
  const auto found = std::find(from.begin(), from.end(), buffer);
  if (found != from.end()) *found = from.back(), from.pop_back();
}

}  // namespace

Residency::Residency(id<MTLDevice> device)
    : queue_(nil), set_(residency_set(device)), keep_alive_([this] {
        @autoreleasepool {
          const std::lock_guard lock(mutex_);
          if (queue_ != nil) [set_ requestResidency];
        }
      }) {}

Residency::~Residency() { serve(nil); }

void Residency::serve(id<MTLCommandQueue> queue) {
  const std::lock_guard lock(mutex_);
  if (set_ != nil && queue_ != nil) [(id<FoundryMTLCommandQueue>)queue_ removeResidencySet:set_];
  queue_ = queue;
  if (set_ != nil && queue_ != nil) [(id<FoundryMTLCommandQueue>)queue_ addResidencySet:set_];
}

void Residency::add(id<MTLBuffer> buffer, bool written) {
  const std::lock_guard lock(mutex_);
  (written ? written_ : read_).push_back(buffer);
  if (set_ == nil) return;
  [set_ addAllocation:buffer];
  added_ = true;
}

void Residency::retire(id<MTLBuffer> buffer) {
  const std::lock_guard lock(mutex_);
  // A step being encoded may read it too: it will be the next.
  retired_.push_back({submitted_ + (encoding_ ? 1 : 0), buffer});
  sweep();
}

void Residency::remove(id<MTLBuffer> buffer) {
  erase(read_, buffer);
  erase(written_, buffer);
  if (set_ != nil) [set_ removeAllocation:buffer];
}

void Residency::use(id<MTLComputeCommandEncoder> encoder) {
  const std::lock_guard lock(mutex_);
  encoding_ = true;
  if (set_ != nil) return;
  if (!read_.empty()) [encoder useResources:read_.data() count:read_.size() usage:MTLResourceUsageRead];
  if (!written_.empty())
    [encoder useResources:written_.data() count:written_.size() usage:MTLResourceUsageRead | MTLResourceUsageWrite];
}

void Residency::commit() {
  const std::lock_guard lock(mutex_);
  if (added_) publish();
}

void Residency::publish() {
  [set_ commit];
  if (added_) [set_ requestResidency];
  added_ = false;
}

void Residency::submitted(uint64_t step) {
  {
    const std::lock_guard lock(mutex_);
    encoding_ = false;
    submitted_ = step;
  }
  if (set_ != nil) keep_alive_.touch();
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
  const size_t gone = std::erase_if(retired_, [this](const Retired& one) {
    if (one.step > ended_) return false;
    remove(one.buffer);
    return true;
  });
  if (gone != 0 && set_ != nil) publish();  // the set holds what was removed until then
}

MetalBuffer::MetalBuffer(std::shared_ptr<Residency> residency, id<MTLBuffer> buffer, uint64_t offset, uint64_t bytes,
                         MemoryKind kind, bool written)
    : residency_(std::move(residency)),
      buffer_(buffer),
      offset_(offset),
      bytes_(bytes),
      address_(buffer.gpuAddress + offset),
      contents_(static_cast<std::byte*>(buffer.contents) + offset),
      kind_(kind) {
  residency_->add(buffer_, written);
}

MetalBuffer::~MetalBuffer() { residency_->retire(buffer_); }

}  // namespace foundry
