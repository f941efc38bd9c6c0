#include "device/metal/find_device.h"

namespace foundry {
namespace {

constexpr int kOldestFamily = 1001, kNewestFamily = 1020;  // Apple1 and on, some that are still to come among them

bool fits(id<MTLDevice> device, Families families) {
  if ([device supportsFamily:MTLGPUFamilyApple7]) return true;
  return families == Families::any_apple && [device supportsFamily:MTLGPUFamilyApple5];
}

std::string told(id<MTLDevice> device) {
  const int family = apple_family(device);
  const std::string name = "\"" + std::string(device.name.UTF8String) + "\"";
  return family == 0 ? name + ", which is not Apple's" : name + " of family Apple" + std::to_string(family);
}

}  // namespace

/// MTLGPUFamilyMetal3 would not do: those of other makers have it, too.
int apple_family(id<MTLDevice> device) {
  for (int family = kNewestFamily; family >= kOldestFamily; --family)
    if ([device supportsFamily:static_cast<MTLGPUFamily>(family)]) return family - kOldestFamily + 1;
  return 0;
}

id<MTLDevice> find_device(Families families, std::string* found) {
  std::string other = "none";
  NSArray<id<MTLDevice>>* all = MTLCopyAllDevices();
  for (NSUInteger i = 0; i < all.count; ++i) {
    id<MTLDevice> one = [all objectAtIndex:i];
    if (fits(one, families)) return one;
    other = told(one);
  }
  // Where the list is empty. This one is nil in a process that has not loaded CoreGraphics.
  id<MTLDevice> one = MTLCreateSystemDefaultDevice();
  if (one != nil && fits(one, families)) return one;
  if (one != nil) other = told(one);
  if (found != nullptr) *found = other;
  return nil;
}

}  // namespace foundry
