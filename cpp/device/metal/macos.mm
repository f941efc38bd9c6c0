#include "device/metal/macos.h"

#import <Foundation/Foundation.h>

namespace foundry {
namespace {

bool plain(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

}  // namespace

int macos_version() {
  @autoreleasepool {
    return static_cast<int>([NSProcessInfo processInfo].operatingSystemVersion.majorVersion);
  }
}

/// The last word of "Version 14.5 (Build 23F79)": what stands before it depends on the user's language.
std::string macos_build() {
  @autoreleasepool {
    const char* text = [NSProcessInfo processInfo].operatingSystemVersionString.UTF8String;
    const std::string whole = text == nullptr ? "" : text;
    size_t end = whole.size();
    while (end > 0 && !plain(whole[end - 1])) --end;
    size_t begin = end;
    while (begin > 0 && plain(whole[begin - 1])) --begin;
    return whole.substr(begin, end - begin);
  }
}

}  // namespace foundry
