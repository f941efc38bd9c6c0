// What Foundry uses of Foundation, for machines without it: declarations as Apple's, defined in software/foundation.mm.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(__APPLE__)
#include <objc/objc.h>
#else
typedef signed char BOOL;
#define YES ((BOOL)1)
#define NO ((BOOL)0)
#define nil ((id)0)
#endif
typedef unsigned long NSUInteger;
typedef long NSInteger;
// As Apple's SDKs say what is newer than the oldest system; FOUNDRY_SDK=14 leaves it out, as that system's SDK does.
#ifndef FOUNDRY_SDK
#define FOUNDRY_SDK 15
#endif
#if defined(__APPLE__)
#include <os/availability.h>
#else
#define API_AVAILABLE(systems)
#endif
#define NS_ASSUME_NONNULL_BEGIN _Pragma("clang assume_nonnull begin")
#define NS_ASSUME_NONNULL_END _Pragma("clang assume_nonnull end")
#define NS_ENUM(type, name) \
  enum name : type name;    \
  enum name : type
#define NS_OPTIONS(type, name) \
  type name;                   \
  enum : name

NS_ASSUME_NONNULL_BEGIN
@class NSString;
@protocol NSObject
- (BOOL)respondsToSelector:(SEL)selector;
@end
__attribute__((objc_root_class))
@interface NSObject<NSObject> {
  Class isa;
}
+ (instancetype)alloc;
+ (instancetype)new;
- (instancetype)init;
- (void)dealloc;
@end
@interface NSString : NSObject
@property(readonly, nullable) const char* UTF8String;
+ (nullable instancetype)stringWithUTF8String:(const char*)text;
@end
@interface NSError : NSObject
@property(readonly) NSInteger code;
@property(readonly, copy) NSString* localizedDescription;
@end
@interface NSURL : NSObject
+ (NSURL*)fileURLWithPath:(NSString*)path;
@end
@interface NSArray<ObjectType> : NSObject
@property(readonly) NSUInteger count;
+ (instancetype)arrayWithObject:(ObjectType)object;
- (ObjectType)objectAtIndex:(NSUInteger)index;
@end
typedef struct {
  NSInteger majorVersion, minorVersion, patchVersion;
} NSOperatingSystemVersion;
@interface NSProcessInfo : NSObject
@property(readonly) NSOperatingSystemVersion operatingSystemVersion;
@property(readonly, copy) NSString* operatingSystemVersionString;
+ (NSProcessInfo*)processInfo;
@end
extern "C" Class _Nullable NSClassFromString(NSString* aClassName);
NS_ASSUME_NONNULL_END
