// From source to pipelines, and archives of them. The kernels themselves have been translated and built beforehand.
#include <fstream>

#include "metal_on_linux/objc/bridge.h"
#include "metal_on_linux/software/machine.h"
#import "metal_on_linux/software/objects.h"

using software_metal::check, software_metal::report, software_metal::text_of;

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
@implementation SoftwareFunction
@end

@implementation SoftwareLibrary
- (id<MTLFunction>)newFunctionWithName:(NSString*)name
                        constantValues:(MTLFunctionConstantValues*)constantValues
                                 error:(NSError* __autoreleasing*)error {
  if (!metal_host::kernels().contains(text_of(name)) || !software_metal::is_of_part(text_of(name), _part)) {
    report(error, 1, "no function " + text_of(name));
    return nil;
  }
  SoftwareFunction* function = [SoftwareFunction new];
  function->_name = text_of(name);
  function->_constants = constantValues->_bits;
  return function;
}
@end

@implementation SoftwarePipeline
@end
@implementation MTLComputePipelineDescriptor
@synthesize label, computeFunction, binaryArchives, maxTotalThreadsPerThreadgroup;
@end

@implementation MTLBinaryArchiveDescriptor
@synthesize url;
@end

bool software_metal::is_of_part(const std::string& kernel, const std::string& part) {
  return part.empty() || part == "rest" || (kernel + "_").find("_" + part + "_") != std::string::npos;
}
std::string software_metal::archive_entry(MTLComputePipelineDescriptor* descriptor) {
  SoftwareFunction* function = static_cast<SoftwareFunction*>(descriptor.computeFunction);
  return function->_name + " " + std::to_string(function->_constants) + " " +
         std::to_string(descriptor.maxTotalThreadsPerThreadgroup);
}
@implementation SoftwareArchive
- (BOOL)addComputePipelineFunctionsWithDescriptor:(MTLComputePipelineDescriptor*)descriptor
                                            error:(NSError* __autoreleasing*)error {
  (void)error;
  _pipelines.insert(software_metal::archive_entry(descriptor));
  return YES;
}
- (BOOL)serializeToURL:(NSURL*)url error:(NSError* __autoreleasing*)error {
  const std::string path = text_of(static_cast<FoundryURL*>(url).path);
  software_gpu::archives_written.push_back(path);
  std::ofstream file(path);
  file << software_metal::kArchiveLine << "\n";
  for (const std::string& pipeline : _pipelines) file << pipeline << "\n";
  if (file.flush()) return YES;
  report(error, 1, "can't write");
  return NO;
}
@end
