// A small Objective-C runtime, for tests: what ARC code compiled by clang on Linux needs to run, and a count of objects that live.
#pragma once
#include "metal_on_linux/objc/abi.h"

namespace objc_runtime {

using namespace objc_abi;

/// Zeroed, with one reference; C++ ivars are constructed.
Object* allocate(Class* of);
/// Of the root class's dealloc: weak references become nil, C++ ivars are destroyed, the memory goes.
void destroy(Object* object);
Method find(const Class* of, const char* selector);
/// How many objects there are now, strings of the program left out.
long live();
[[noreturn]] void fail(const char* what, const char* of, const char* selector = "");

}  // namespace objc_runtime
