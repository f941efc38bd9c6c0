// What clang emits for -fobjc-runtime=gnustep-2.0 and the runtime reads: classes, methods, ivars, categories. Field by field as in
// the compiler's IR; messages by lookup (-fobjc-dispatch-method=legacy), so no assembler is needed.
#pragma once
#include <cstddef>
#include <cstdint>

namespace objc_abi {

struct Class;
struct Object {
  Class* isa;
};
using Method = void (*)();

struct Selector {
  const char* name;
  const char* types;
};

/// Lists say how far apart their elements are; they may be longer than what is read of them.
struct MethodEntry {
  Method method;
  Selector* selector;
  const char* types;
};
struct MethodList {
  MethodList* next;
  int32_t count;
  size_t size;
  MethodEntry entries[];
};
struct Ivar {
  const char* name;
  const char* type;
  int32_t* offset;  // the runtime fills it in
  uint32_t size;
  uint32_t flags;  // bits 3 on: log2 of the alignment
};
struct IvarList {
  int32_t count;
  size_t size;
  Ivar entries[];
};

inline constexpr uint64_t kMeta = 1, kResolved = 512;  // of Class::info

struct Class {
  Class* isa;
  Class* super;
  const char* name;
  int64_t version;
  uint64_t info;
  int64_t instance_size;  // as emitted: minus the size of its own ivars
  IvarList* ivars;
  MethodList* methods;
  void* dtable;
  Method construct, destruct;
  Class* subclasses;
  Class* siblings;
  void* protocols;
  void* extra;
  int64_t abi;
  void* properties;
};

struct Category {
  const char* name;
  const char* of;
  MethodList* methods;
  MethodList* class_methods;
};

/// A module's sections. Protocols, aliases and strings, which follow, are not read.
struct Module {
  uint64_t version;  // all ones once loaded
  Selector *selectors, *selectors_end;
  Class **classes, **classes_end;
  Class **class_references, **class_references_end;
  Category *categories, *categories_end;
};

/// What a lookup gives; only the method is read.
struct Slot {
  Class* owner;
  Class* cached_for;
  const char* types;
  int32_t version;
  Method method;
};

struct Super {
  Object* receiver;
  Class* of;
};

}  // namespace objc_abi
