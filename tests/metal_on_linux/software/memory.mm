// Buffers, fences and residency sets.
#include <algorithm>

#import "metal_on_linux/software/objects.h"

using software_gpu::Allocation;
using software_metal::check;

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

@implementation SoftwareFence
@end

@implementation MTLResidencySetDescriptor
@synthesize label;
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
  ++software_gpu::residency_requests;
}
@end
