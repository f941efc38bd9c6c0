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
+ (instancetype)arrayWithObject:(ObjectType)object;
@end
NS_ASSUME_NONNULL_END
