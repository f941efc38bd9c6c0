// Foundation's few classes, without ARC: objects count their own references (objc/arc.cpp).
#import "metal_on_linux/software/foundation_private.h"

#include <cstdlib>
#include <cstring>

#include "metal_on_linux/objc/bridge.h"
#include "metal_on_linux/software/machine.h"

@implementation NSObject
+ (instancetype)alloc {
  return foundry_objc_allocate(self);
}
+ (instancetype)new {
  return [[self alloc] init];
}
- (instancetype)init {
  return self;
}
- (void)dealloc {
  foundry_objc_destroy(self);
}
- (BOOL)respondsToSelector:(SEL)selector {
  return foundry_objc_responds(self, selector) ? YES : NO;
}
@end

// As clang lays out @"...".
@interface NSConstantString : NSString {
  uint32_t _flags, _length, _size, _hash;
  const char* _data;
}
@end
// Up to eight ASCII characters in the pointer: 7 bits each from the top, the length in bits 3 to 7.
@interface NSTinyString : NSString
@end
@interface FoundryString : NSString {
 @public
  char* _text;
}
@end

@implementation NSString
+ (instancetype)stringWithUTF8String:(const char*)text {
  FoundryString* made = [FoundryString new];
  made->_text = strdup(text);
  return objc_autorelease(made);
}
- (const char*)UTF8String {
  foundry_objc_fail("a string without text", "NSString");
}
- (id)copy {
  return objc_retain(self);
}
@end

@implementation NSConstantString
- (const char*)UTF8String {
  return _data;
}
@end

@implementation NSTinyString
- (const char*)UTF8String {
  static thread_local char texts[8][16];
  static thread_local unsigned turn = 0;
  char* text = texts[turn++ % 8];
  const auto bits = reinterpret_cast<uintptr_t>(self);
  const unsigned n = bits >> 3 & 0x1f;
  for (unsigned i = 0; i < n; ++i) text[i] = static_cast<char>(bits >> (57 - 7 * i) & 0x7f);
  text[n] = 0;
  return text;
}
@end

@implementation FoundryString
- (const char*)UTF8String {
  return _text;
}
- (void)dealloc {
  std::free(_text);
  [super dealloc];
}
@end

@implementation NSURL
+ (NSURL*)fileURLWithPath:(NSString*)path {
  FoundryURL* made = [FoundryURL new];
  made->_path = objc_retain(path);
  return objc_autorelease(made);
}
- (id)copy {
  return objc_retain(self);
}
@end
@implementation FoundryURL
- (NSString*)path {
  return _path;
}
- (void)dealloc {
  objc_release(_path);
  [super dealloc];
}
@end

@implementation NSArray
- (NSUInteger)count {
  return static_cast<FoundryArray*>(self)->_object == nil ? 0 : 1;
}
- (id)objectAtIndex:(NSUInteger)index {
  if (index >= self.count) foundry_objc_fail("objectAtIndex: past the end", "NSArray");
  return static_cast<FoundryArray*>(self)->_object;
}
+ (instancetype)arrayWithObject:(id)object {
  FoundryArray* made = [FoundryArray new];
  made->_object = objc_retain(object);
  return objc_autorelease(made);
}
- (id)copy {
  return objc_retain(self);
}
@end
@implementation FoundryArray
- (id)object {
  return _object;
}
- (void)dealloc {
  objc_release(_object);
  [super dealloc];
}
@end

@implementation NSProcessInfo
+ (NSProcessInfo*)processInfo {
  return objc_autorelease([NSProcessInfo new]);
}
- (NSOperatingSystemVersion)operatingSystemVersion {
  return {software_gpu::machine().macos, 0, 0};
}
- (NSString*)operatingSystemVersionString {
  const software_gpu::Machine& machine = software_gpu::machine();
  return [NSString
      stringWithUTF8String:("Version " + std::to_string(machine.macos) + ".0 (Build " + machine.build + ")").c_str()];
}
@end

Class NSClassFromString(NSString* aClassName) {
  if (!software_gpu::knows(aClassName.UTF8String)) return nil;
  return foundry_objc_class(aClassName.UTF8String);
}

@implementation NSError
- (NSInteger)code {
  return 0;
}
- (NSString*)localizedDescription {
  return @"";
}
@end
@implementation FoundryError
+ (NSError*)errorWithCode:(NSInteger)code text:(const char*)text {
  FoundryError* made = [FoundryError new];
  made->_code = code;
  made->_text = objc_retain([NSString stringWithUTF8String:text]);
  return objc_autorelease(made);
}
- (NSInteger)code {
  return _code;
}
- (NSString*)localizedDescription {
  return _text;
}
- (void)dealloc {
  objc_release(_text);
  [super dealloc];
}
@end
