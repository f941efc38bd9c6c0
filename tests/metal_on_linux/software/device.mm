// The device, and how programs find it.
#include <fstream>

#include "metal_on_linux/objc/bridge.h"
#include "metal_on_linux/software/m1.h"
#include "metal_on_linux/software/machine.h"
#import "metal_on_linux/software/objects.h"

using software_gpu::Allocation;
using software_metal::check, software_metal::report, software_metal::text_of;

namespace {
constexpr uint64_t kMemory = uint64_t{12} << 30;
constexpr NSInteger kMetal3 = 5001, kApple0 = 1000;  // families
}  // namespace

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
  const std::string prefix = "#define FOUNDRY_PART\n#define FOUNDRY_PART_";
  if (text.starts_with(prefix))
    library->_part = text.substr(prefix.size(), text.find(' ', prefix.size()) - prefix.size());
  software_gpu::compiled.push_back(library->_part);
  return library;
}
- (id<MTLLibrary>)newLibraryWithURL:(NSURL*)url error:(NSError* __autoreleasing*)error {
  std::ifstream file(text_of(static_cast<FoundryURL*>(url).path));
  std::string line;
  if (std::getline(file, line) && line == software_gpu::kLibraryLine) return [SoftwareLibrary new];
  report(error, 1, "no library of kernels");
  return nil;
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
    if (archive == nil || !archive->_pipelines.contains(software_metal::archive_entry(descriptor))) {
      report(error, 2, "not in the archive");
      return nil;
    }
  }
  SoftwareFunction* function = static_cast<SoftwareFunction*>(descriptor.computeFunction);
  SoftwarePipeline* pipeline = [SoftwarePipeline new];
  pipeline->_kernel = function->_name, pipeline->_constants = function->_constants;
  pipeline->_most = descriptor.maxTotalThreadsPerThreadgroup == 0 ? 1024 : descriptor.maxTotalThreadsPerThreadgroup;
  return pipeline;
}
- (id<MTLBinaryArchive>)newBinaryArchiveWithDescriptor:(MTLBinaryArchiveDescriptor*)descriptor
                                                 error:(NSError* __autoreleasing*)error {
  SoftwareArchive* archive = [SoftwareArchive new];
  if (descriptor.url == nil) return archive;
  std::ifstream file(text_of(static_cast<FoundryURL*>(descriptor.url).path));
  std::string line;
  if (!std::getline(file, line) || line != software_metal::kArchiveLine) {
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
