// Encoders, command buffers and queues: what is committed runs when somebody waits for it.
#include <algorithm>

#include "metal_on_linux/software/m1.h"
#import "metal_on_linux/software/objects.h"

using software_gpu::Allocation;
using software_metal::check;

namespace {
constexpr NSUInteger kMostThreads = 1024, kMostBytes = 4096;
}

@implementation SoftwareEncoder
- (software_gpu::Binding&)binding:(NSUInteger)index {
  check(!_ended, "a call to an encoder that has ended");
  check(index < _next.bindings.size(), "a buffer index past 30");
  return _next.bindings[index];
}
- (void)setComputePipelineState:(id<MTLComputePipelineState>)state {
  check(!_ended, "a call to an encoder that has ended");
  check(state != nil, "no pipeline");
  SoftwarePipeline* pipeline = static_cast<SoftwarePipeline*>(state);
  _next.kernel = pipeline->_kernel, _next.constants = pipeline->_constants, _most = pipeline->_most;
}
- (void)setBuffer:(id<MTLBuffer>)buffer offset:(NSUInteger)offset atIndex:(NSUInteger)index {
  software_gpu::Binding& binding = [self binding:index];
  binding = {};
  if (buffer == nil) return;
  const std::shared_ptr<Allocation>& allocation = static_cast<SoftwareBuffer*>(buffer)->_allocation;
  check(offset < allocation->bytes(), "an offset past the buffer's end");
  check(offset % 4 == 0, "an offset that is no multiple of 4");
  binding.allocation = allocation.get(), binding.offset = offset;
  _pass.used.insert(allocation.get());
  _owner->_held.push_back(allocation);
}
- (void)setBytes:(const void*)bytes length:(NSUInteger)length atIndex:(NSUInteger)index {
  check(length != 0 && length <= kMostBytes, "setBytes of none or of more than 4 KB");
  const auto* from = static_cast<const std::byte*>(bytes);
  [self binding:index] = {nullptr, 0, {from, from + length}};
}
- (void)dispatchThreadgroups:(MTLSize)groups threadsPerThreadgroup:(MTLSize)threads {
  check(!_ended, "a call to an encoder that has ended");
  check(!_next.kernel.empty(), "a dispatch without a pipeline");
  check(groups.width * groups.height * groups.depth != 0, "an empty grid");
  check(threads.width * threads.height * threads.depth <= kMostThreads, "more than 1024 threads in a threadgroup");
  check(threads.width * threads.height * threads.depth <= _most, "more threads than the pipeline was made for");
  _next.grid = {static_cast<uint32_t>(groups.width), static_cast<uint32_t>(groups.height),
                static_cast<uint32_t>(groups.depth)};
  _next.threads = {static_cast<uint32_t>(threads.width), static_cast<uint32_t>(threads.height),
                   static_cast<uint32_t>(threads.depth)};
  _next.behind_barrier = _behind_barrier;
  _behind_barrier = false, _begun = true;
  _owner->_seconds += software_gpu::m1_seconds(_next);
  _pass.commands.push_back(_next);
  _next.bindings = {};  // stricter than Metal, which keeps them: nothing is bound by accident
}
- (void)memoryBarrierWithScope:(MTLBarrierScope)scope {
  check(!_ended && scope == MTLBarrierScopeBuffers, "a barrier after the end, or of another scope than buffers");
  _behind_barrier = true;
}
- (void)updateFence:(id<MTLFence>)fence {
  check(!_ended && fence != nil, "a fence after the end, or none");
  static_cast<SoftwareFence*>(fence)->_updated = true;
  _pass.updates = true;
}
- (void)waitForFence:(id<MTLFence>)fence {
  check(!_ended && fence != nil && !_begun, "waitForFence behind the pass's first dispatch");
  check(!_pass.updates, "an encoder that waits for the fence that it updates");
  check(static_cast<SoftwareFence*>(fence)->_updated, "an encoder that waits for a fence that nobody has updated");
  _pass.waits = true;
}
- (void)useResources:(const id<MTLResource>[])resources count:(NSUInteger)count usage:(MTLResourceUsage)usage {
  check(!_ended && usage != 0, "useResources after the end, or for nothing");
  for (NSUInteger i = 0; i < count; ++i) {
    const std::shared_ptr<Allocation>& allocation = static_cast<SoftwareBuffer*>(resources[i])->_allocation;
    _pass.used.insert(allocation.get());
    _owner->_held.push_back(allocation);
  }
}
- (void)endEncoding {
  check(!_ended, "endEncoding twice");
  _ended = true;
  _owner->_open = false;
  _owner->_passes.push_back(std::move(_pass));
  _owner = nil;
}
- (void)dealloc {
  check(_ended, "an encoder that goes without endEncoding");
}
@end

@implementation SoftwareCommandBuffer
- (id<MTLDevice>)device {
  return _queue->_device;
}
- (MTLCommandBufferStatus)status {
  return _status;
}
- (NSError*)error {
  return _error;
}
- (id<MTLComputeCommandEncoder>)computeCommandEncoderWithDispatchType:(MTLDispatchType)dispatchType {
  check(!_open, "a second encoder while one is open");
  check(_status == MTLCommandBufferStatusNotEnqueued, "an encoder after commit");
  SoftwareEncoder* encoder = [SoftwareEncoder new];
  encoder->_owner = self;
  encoder->_pass.serial = dispatchType == MTLDispatchTypeSerial;
  _open = true;
  return encoder;
}
- (void)commit {
  check(!_open, "commit with an open encoder");
  check(_status == MTLCommandBufferStatusNotEnqueued, "commit twice");
  _status = MTLCommandBufferStatusCommitted;
  if (software_gpu::fault == "memory" || software_gpu::fault == "page fault" || software_gpu::fault == "dead") {
    const bool memory = software_gpu::fault == "memory";
    _error = [FoundryError errorWithCode:memory ? MTLCommandBufferErrorOutOfMemory : MTLCommandBufferErrorPageFault
                                    text:memory ? "Insufficient Memory" : "Caused GPU Address Fault Error"];
    if (software_gpu::fault != "dead") software_gpu::fault.clear();
  } else if (_seconds > software_gpu::kLongest) {
    _error = [FoundryError errorWithCode:MTLCommandBufferErrorTimeout text:"Caused GPU Timeout Error"];
  }
  _queue->_pending.push_back(self);
}
- (void)waitUntilCompleted {
  static std::mutex one_gpu;
  const std::lock_guard lock(one_gpu);
  check(_status != MTLCommandBufferStatusNotEnqueued, "waitUntilCompleted before commit: it would never end");
  if (_status == MTLCommandBufferStatusCommitted) [_queue runUntil:self];
}
- (void)run {
  std::set<const Allocation*> resident;
  std::vector<std::shared_ptr<Allocation>> held;
  for (SoftwareResidencySet* set : _queue->_sets) {
    const std::lock_guard lock(set->_mutex);
    check(set->_requested || set->_committed.empty(), "a residency set whose residency nobody requested");
    for (const auto& one : set->_committed) resident.insert(one.get()), held.push_back(one);
  }
  if (software_gpu::fault == "residency") resident.clear();
  if (_queue->_refuses)
    _error = [FoundryError errorWithCode:MTLCommandBufferErrorAccessRevoked
                                    text:"Ignored (for causing prior/excessive GPU errors)"];
  _queue->_refuses = _error != nil;
  if (_error == nil)
    for (const software_gpu::Pass& pass : _passes) software_gpu::run(pass, resident);
  _status = _error == nil ? MTLCommandBufferStatusCompleted : MTLCommandBufferStatusError;
  _passes.clear();
  _held.clear();
}
- (void)dealloc {
  check(_status != MTLCommandBufferStatusCommitted, "a committed command buffer that nobody waits for");
}
@end

@implementation SoftwareQueue
- (id<MTLCommandBuffer>)commandBuffer {
  SoftwareCommandBuffer* made = [SoftwareCommandBuffer new];
  made->_queue = self;
  return made;
}
- (void)addResidencySet:(id<MTLResidencySet>)residencySet {
  _sets.push_back(static_cast<SoftwareResidencySet*>(residencySet));
}
- (void)removeResidencySet:(id<MTLResidencySet>)residencySet {
  std::erase(_sets, static_cast<SoftwareResidencySet*>(residencySet));
}
- (void)runUntil:(SoftwareCommandBuffer*)last {
  while (last->_status == MTLCommandBufferStatusCommitted) {
    SoftwareCommandBuffer* next = _pending.front();
    _pending.pop_front();
    // Nothing but a fence keeps the next one from overtaking: then it does.
    const bool fences = software_gpu::fault != "fences";
    while (!_pending.empty() && !next->_passes.empty() && !_pending.front()->_passes.empty() &&
           !(fences && next->_passes.back().updates && _pending.front()->_passes.front().waits)) {
      SoftwareCommandBuffer* faster = _pending.front();
      _pending.pop_front();
      [faster run];
    }
    [next run];
  }
}
@end
