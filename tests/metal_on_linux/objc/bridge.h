// The runtime as Objective-C++ calls it: runtime.h is for C++, and some of its names are Objective-C's own.
#pragma once

extern "C" {
id foundry_objc_allocate(Class of);
Class foundry_objc_class(const char* name);
void foundry_objc_destroy(id object);
bool foundry_objc_responds(id object, SEL selector);
const char* foundry_objc_name(SEL selector);
[[noreturn]] void foundry_objc_fail(const char* what, const char* of);
long foundry_objc_live(void);
id objc_retain(id);
void objc_release(id);
id objc_autorelease(id);
}
