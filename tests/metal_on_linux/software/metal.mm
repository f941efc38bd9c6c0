// Metal's objects over gpu.h. What Apple's validation layer refuses ends the process with a message.
#import <Metal/Metal.h>

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>

#include "metal_on_linux/objc/bridge.h"
#import "metal_on_linux/software/foundation_private.h"
#include "metal_on_linux/software/gpu.h"
#include "metal_on_linux/software/m1.h"
#include "metal_on_linux/software/machine.h"

using software_gpu::Allocation;
using software_gpu::broken;

namespace {

constexpr uint64_t kMemory = uint64_t{12} << 30;
constexpr NSInteger kMetal3 = 5001, kApple0 = 1000;  // families
constexpr NSUInteger kMostThreads = 1024, kMostBytes = 4096;

void check(bool holds, const char* rule) {
  if (!holds) broken(rule);
}

std::string text_of(NSString* string) { return string == nil ? "" : string.UTF8String; }

void report(NSError* __autoreleasing* error, NSInteger code, const std::string& text) {
  if (error != nullptr) *error = [FoundryError errorWithCode:code text:text.c_str()];
}

}  // namespace

@interface SoftwareBuffer : NSObject <MTLBuffer> {
 @public
  std::shared_ptr<Allocation> _allocation;
}
@end
@implementation SoftwareBuffer
- (NSUInteger)length {
  return _allocation->bytes();
}
- (uint64_t)gpuAddress {
  return reinterpret_cast<uint64_t>(_allocation->data());
}
- (void*)contents {
  return _allocation->data();
}
@end

@interface SoftwareFence : NSObject <MTLFence> {
 @public
  bool _updated;
}
@end
@implementation SoftwareFence
@end

@implementation MTLResidencySetDescriptor
@synthesize label;
@end
@interface SoftwareResidencySet : NSObject <MTLResidencySet> {
 @public
  std::mutex _mutex;
  std::vector<std::shared_ptr<Allocation>> _added, _committed;
  bool _requested;
}
@end
@implementation SoftwareResidencySet
- (void)addAllocation:(id<MTLAllocation>)allocation {
  const std::lock_guard lock(_mutex);
  _added.push_back(static_cast<SoftwareBuffer*>(allocation)->_allocation);
}
- (void)removeAllocation:(id<MTLAllocation>)allocation {
  const std::lock_guard lock(_mutex);
  const auto found = std::find(_added.begin(), _added.end(), static_cast<SoftwareBuffer*>(allocation)->_allocation);
  check(found != _added.end(), "removeAllocation of what the set does not hold");
  _added.erase(found);
}
- (void)commit {
  const std::lock_guard lock(_mutex);
  _committed = _added;
}
- (void)requestResidency {
  const std::lock_guard lock(_mutex);
  _requested = true;
}
@end

@implementation MTLCompileOptions
@synthesize languageVersion, fastMathEnabled, mathMode;
- (instancetype)init {
  mathMode = static_cast<MTLMathMode>(2);  // MTLMathModeFast: what a compiler does that nobody told
  fastMathEnabled = YES;
  return self;
}
- (BOOL)respondsToSelector:(SEL)selector {
  return software_gpu::knows(foundry_objc_name(selector)) && [super respondsToSelector:selector];
}
@end
@interface MTLFunctionConstantValues () {
 @public
  uint32_t _bits;
}
@end
@implementation MTLFunctionConstantValues
- (void)setConstantValue:(const void*)value type:(MTLDataType)type atIndex:(NSUInteger)index {
  check(type == MTLDataTypeBool && index < 32, "a function constant of a kind that is not known here");
  if (*static_cast<const bool*>(value)) _bits |= 1u << index;
}
@end
@interface SoftwareFunction : NSObject <MTLFunction> {
 @public
  std::string _name;
  uint32_t _constants;
}
@end
@implementation SoftwareFunction
@end

@interface SoftwareLibrary : NSObject <MTLLibrary> {
 @public
  std::string _source;
}
@end
@implementation SoftwareLibrary
- (id<MTLFunction>)newFunctionWithName:(NSString*)name
                        constantValues:(MTLFunctionConstantValues*)constantValues
                                 error:(NSError* __autoreleasing*)error {
  if (!metal_host::kernels().contains(text_of(name))) {
    report(error, 1, "no function " + text_of(name));
    return nil;
  }
  SoftwareFunction* function = [SoftwareFunction new];
  function->_name = text_of(name);
  function->_constants = constantValues->_bits;
  return function;
}
@end

@interface SoftwarePipeline : NSObject <MTLComputePipelineState> {
 @public
  std::string _kernel;
  uint32_t _constants;
}
@end
@implementation SoftwarePipeline
@end
@implementation MTLComputePipelineDescriptor
@synthesize label, computeFunction, binaryArchives;
@end

@implementation MTLBinaryArchiveDescriptor
@synthesize url;
@end
// On disk: a first line, then a pipeline a line.
@interface SoftwareArchive : NSObject <MTLBinaryArchive> {
 @public
  std::set<std::string> _pipelines;
}
@end
namespace {
constexpr const char* kArchive = "software Metal archive";
std::string entry_of(MTLComputePipelineDescriptor* descriptor) {
  SoftwareFunction* function = static_cast<SoftwareFunction*>(descriptor.computeFunction);
  return function->_name + " " + std::to_string(function->_constants);
}
}  // namespace
@implementation SoftwareArchive
- (BOOL)addComputePipelineFunctionsWithDescriptor:(MTLComputePipelineDescriptor*)descriptor
                                            error:(NSError* __autoreleasing*)error {
  (void)error;
  _pipelines.insert(entry_of(descriptor));
  return YES;
}
- (BOOL)serializeToURL:(NSURL*)url error:(NSError* __autoreleasing*)error {
  const std::string path = text_of(static_cast<FoundryURL*>(url).path);
  software_gpu::archives_written.push_back(path);
  std::ofstream file(path);
  file << kArchive << "\n";
  for (const std::string& pipeline : _pipelines) file << pipeline << "\n";
  if (file.flush()) return YES;
  report(error, 1, "can't write");
  return NO;
}
@end

@class SoftwareCommandBuffer;
@interface SoftwareEncoder : NSObject <MTLComputeCommandEncoder> {
 @public
  SoftwareCommandBuffer* _owner;
  software_gpu::Pass _pass;
  software_gpu::Command _next;
  bool _ended, _begun, _behind_barrier;
}
@end
@class SoftwareQueue;
@interface SoftwareCommandBuffer : NSObject <MTLCommandBuffer> {
 @public
  SoftwareQueue* _queue;
  std::vector<software_gpu::Pass> _passes;
  double _seconds;                                 // that an M1 would take
  std::vector<std::shared_ptr<Allocation>> _held;  // until it has run
  bool _open;
  MTLCommandBufferStatus _status;
  NSError* _error;
}
- (void)run;
@end
@interface SoftwareDevice : NSObject <MTLDevice>
@end
@interface SoftwareQueue : NSObject <MTLCommandQueue> {
 @public
  SoftwareDevice* _device;
  std::vector<SoftwareResidencySet*> _sets;
  std::deque<SoftwareCommandBuffer*> _pending;
  bool _refuses;  // since a command buffer failed
}
- (void)runUntil:(SoftwareCommandBuffer*)last;
@end

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
  _next.kernel = pipeline->_kernel, _next.constants = pipeline->_constants;
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

@implementation SoftwareDevice
- (NSString*)name {
  return software_gpu::machine().family == 0 ? @"AMD Radeon Pro 5500M" : @"software Metal";
}
- (uint64_t)recommendedMaxWorkingSetSize {
  return kMemory;
}
- (NSUInteger)currentAllocatedSize {
  return software_gpu::allocated_bytes();
}
- (NSUInteger)maxBufferLength {
  return kMemory / 2;
}
- (BOOL)supportsFamily:(MTLGPUFamily)gpuFamily {
  if (gpuFamily == kMetal3) return YES;  // other makers' GPUs, too
  return gpuFamily > kApple0 && gpuFamily <= kApple0 + software_gpu::machine().family;
}
- (BOOL)respondsToSelector:(SEL)selector {
  return software_gpu::knows(foundry_objc_name(selector)) && [super respondsToSelector:selector];
}
- (id<MTLCommandQueue>)newCommandQueue {
  SoftwareQueue* queue = [SoftwareQueue new];
  queue->_device = self;
  return queue;
}
- (id<MTLFence>)newFence {
  return [SoftwareFence new];
}
- (id<MTLBuffer>)newBufferWithLength:(NSUInteger)length options:(MTLResourceOptions)options {
  check((options & MTLResourceHazardTrackingModeUntracked) != 0, "a tracked buffer: hazards are not tracked here");
  check(length != 0 && length <= self.maxBufferLength, "a buffer of no length, or longer than the longest");
  if (software_gpu::allocated_bytes() + length > kMemory) return nil;
  SoftwareBuffer* buffer = [SoftwareBuffer new];
  buffer->_allocation = std::make_shared<Allocation>(length);
  return buffer;
}
- (id<MTLBuffer>)newBufferWithBytesNoCopy:(void*)pointer
                                   length:(NSUInteger)length
                                  options:(MTLResourceOptions)options
                              deallocator:(void (^)(void* pointer, NSUInteger length))deallocator {
  (void)options;
  check(deallocator == nil, "a deallocator: there are no blocks here");
  check(reinterpret_cast<uintptr_t>(pointer) % 4096 == 0 && length % 4096 == 0, "memory that is not whole pages");
  SoftwareBuffer* buffer = [SoftwareBuffer new];
  buffer->_allocation = std::make_shared<Allocation>(pointer, length);
  return buffer;
}
- (id<MTLLibrary>)newLibraryWithSource:(NSString*)source
                               options:(MTLCompileOptions*)options
                                 error:(NSError* __autoreleasing*)error {
  const std::string text = text_of(source);
  const char* refused = software_gpu::refused(text, options.languageVersion);
  const bool newer = software_gpu::knows("setMathMode:");
  if (newer ? options.mathMode != MTLMathModeSafe : options.fastMathEnabled) refused = "math that reorders sums";
  if (refused != nullptr) {
    report(error, 1, refused);
    return nil;
  }
  SoftwareLibrary* library = [SoftwareLibrary new];
  library->_source = text;
  return library;
}
- (id<MTLComputePipelineState>)newComputePipelineStateWithDescriptor:(MTLComputePipelineDescriptor*)descriptor
                                                             options:(MTLPipelineOption)options
                                                          reflection:
                                                              (MTLComputePipelineReflection* __autoreleasing*)reflection
                                                               error:(NSError* __autoreleasing*)error {
  (void)reflection;
  if ((options & MTLPipelineOptionFailOnBinaryArchiveMiss) != 0) {
    FoundryArray* archives = static_cast<FoundryArray*>(descriptor.binaryArchives);
    SoftwareArchive* archive = archives == nil ? nil : static_cast<SoftwareArchive*>(archives.object);
    if (archive == nil || !archive->_pipelines.contains(entry_of(descriptor))) {
      report(error, 2, "not in the archive");
      return nil;
    }
  }
  SoftwareFunction* function = static_cast<SoftwareFunction*>(descriptor.computeFunction);
  SoftwarePipeline* pipeline = [SoftwarePipeline new];
  pipeline->_kernel = function->_name, pipeline->_constants = function->_constants;
  return pipeline;
}
- (id<MTLBinaryArchive>)newBinaryArchiveWithDescriptor:(MTLBinaryArchiveDescriptor*)descriptor
                                                 error:(NSError* __autoreleasing*)error {
  SoftwareArchive* archive = [SoftwareArchive new];
  if (descriptor.url == nil) return archive;
  std::ifstream file(text_of(static_cast<FoundryURL*>(descriptor.url).path));
  std::string line;
  if (!std::getline(file, line) || line != kArchive) {
    report(error, 1, "no archive of this system");
    return nil;
  }
  while (std::getline(file, line)) archive->_pipelines.insert(line);
  return archive;
}
- (id<MTLResidencySet>)newResidencySetWithDescriptor:(MTLResidencySetDescriptor*)descriptor
                                               error:(NSError* __autoreleasing*)error {
  (void)descriptor;
  if (software_gpu::fault != "residency set") return [SoftwareResidencySet new];
  report(error, 1, "no residency set");
  return nil;
}
@end

id<MTLDevice> MTLCreateSystemDefaultDevice(void) {
  const software_gpu::Machine& machine = software_gpu::machine();
  return machine.listed || machine.family < 0 ? nil : [SoftwareDevice new];
}
NSArray<id<MTLDevice>>* MTLCopyAllDevices(void) {
  const software_gpu::Machine& machine = software_gpu::machine();
  return [NSArray arrayWithObject:machine.listed && machine.family >= 0 ? [SoftwareDevice new] : nil];
}
