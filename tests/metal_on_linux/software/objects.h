// The software Metal's own classes, and how its files refuse: what Apple's validation layer refuses ends the process with a message.
#pragma once
#import <Metal/Metal.h>

#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#import "metal_on_linux/software/foundation_private.h"
#include "metal_on_linux/software/gpu.h"

namespace software_metal {

inline void check(bool holds, const char* rule) {
  if (!holds) software_gpu::broken(rule);
}
inline std::string text_of(NSString* string) { return string == nil ? "" : string.UTF8String; }
inline void report(NSError* __autoreleasing* error, NSInteger code, const std::string& text) {
  if (error != nullptr) *error = [FoundryError errorWithCode:code text:text.c_str()];
}
/// Of an archive's file.
inline constexpr const char* kArchiveLine = "software Metal archive";
/// A pipeline as an archive has it.
std::string archive_entry(MTLComputePipelineDescriptor* descriptor);
/// Whether a library of one part of a file's kernels (kernel.h) may have this one.
bool is_of_part(const std::string& kernel, const std::string& part);

}  // namespace software_metal

@interface SoftwareBuffer : NSObject <MTLBuffer> {
 @public
  std::shared_ptr<software_gpu::Allocation> _allocation;
}
@end
@interface SoftwareFence : NSObject <MTLFence> {
 @public
  bool _updated;
}
@end
@interface SoftwareResidencySet : NSObject <MTLResidencySet> {
 @public
  std::mutex _mutex;
  std::vector<std::shared_ptr<software_gpu::Allocation>> _added, _committed;
  bool _requested;
}
@end

@interface SoftwareFunction : NSObject <MTLFunction> {
 @public
  std::string _name;
  uint32_t _constants;
}
@end
@interface SoftwareLibrary : NSObject <MTLLibrary> {
 @public
  std::string _part;  // of the kernels of a file; empty: all
}
@end
@interface SoftwarePipeline : NSObject <MTLComputePipelineState> {
 @public
  std::string _kernel;
  NSUInteger _most;  // threads of a threadgroup
  uint32_t _constants;
}
@end
// On disk: a first line, then a pipeline a line.
@interface SoftwareArchive : NSObject <MTLBinaryArchive> {
 @public
  std::set<std::string> _pipelines;
}
@end

@class SoftwareCommandBuffer;
@interface SoftwareEncoder : NSObject <MTLComputeCommandEncoder> {
 @public
  SoftwareCommandBuffer* _owner;
  software_gpu::Pass _pass;
  software_gpu::Command _next;
  NSUInteger _most;  // threads, of its pipeline
  bool _ended, _begun, _behind_barrier;
}
@end
@class SoftwareQueue;
@interface SoftwareCommandBuffer : NSObject <MTLCommandBuffer> {
 @public
  SoftwareQueue* _queue;
  std::vector<software_gpu::Pass> _passes;
  double _seconds;                                               // that an M1 would take
  std::vector<std::shared_ptr<software_gpu::Allocation>> _held;  // until it has run
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
