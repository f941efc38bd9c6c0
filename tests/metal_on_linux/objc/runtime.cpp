// Classes and messages.
#include "metal_on_linux/objc/runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace objc_runtime {
namespace {

struct Tables {
  std::mutex mutex;
  std::map<std::string, Class*> classes;
  std::map<std::pair<const Class*, std::string>, std::unique_ptr<Slot>> slots;
};
Tables& tables() {
  static auto* made = new Tables;  // modules load before and unload after everything else
  return *made;
}

template <class List, class F>
void each(List* list, F&& f) {
  for (int32_t i = 0; i < list->count; ++i)
    f(*reinterpret_cast<decltype(&list->entries[0])>(reinterpret_cast<char*>(list->entries) +
                                                     static_cast<size_t>(i) * list->size));
}

/// Places ivars behind those of the superclass, which is resolved first.
void resolve(Class* one) {
  if ((one->info & kResolved) != 0) return;
  one->info |= kResolved;
  if (one->super != nullptr) resolve(one->super);
  int64_t size = one->super == nullptr ? 0 : one->super->instance_size;
  if (one->ivars != nullptr)
    each(one->ivars, [&](Ivar& ivar) {
      const int64_t align = int64_t{1} << ((ivar.flags >> 3) & 63);
      size = (size + align - 1) / align * align;
      *ivar.offset = static_cast<int32_t>(size);
      size += ivar.size;
    });
  one->instance_size = (size + 7) / 8 * 8;
  Class* root = one;
  while (root->super != nullptr) root = root->super;
  one->isa->isa = root->isa;
  one->isa->super = one->super == nullptr ? one : one->super->isa;
}

const Class* class_of(const Object* object) {
  if ((reinterpret_cast<uintptr_t>(object) & 7) == 0) return object->isa;
  const std::lock_guard lock(tables().mutex);
  return tables().classes.at("NSTinyString");  // up to eight characters in the pointer itself
}

uint64_t nothing() { return 0; }  // what a message to nil answers; clang sends none that returns more than a word

const Slot* slot(const Class* of, const Selector* selector, const char* to) {
  static const Slot for_nil{nullptr, nullptr, "", 0, reinterpret_cast<Method>(nothing)};
  if (of == nullptr) return &for_nil;
  const std::lock_guard lock(tables().mutex);
  std::unique_ptr<Slot>& known = tables().slots[{of, selector->name}];
  if (known == nullptr) {
    const Method method = find(of, selector->name);
    if (method == nullptr) fail(to, of->name, selector->name);
    known = std::make_unique<Slot>(Slot{nullptr, nullptr, "", 0, method});
  }
  return known.get();
}

}  // namespace

Method find(const Class* of, const char* selector) {
  for (; of != nullptr; of = of->super)
    for (MethodList* list = of->methods; list != nullptr; list = list->next) {
      Method found = nullptr;
      each(list, [&](MethodEntry& entry) {
        if (found == nullptr && std::strcmp(entry.selector->name, selector) == 0) found = entry.method;
      });
      if (found != nullptr) return found;
    }
  return nullptr;
}

void fail(const char* what, const char* of, const char* selector) {
  std::fprintf(stderr, "objc: %s: %s %s\n", what, of, selector);
  std::abort();
}

}  // namespace objc_runtime

using namespace objc_runtime;

extern "C" {

void __objc_load(Module* module) {
  if (module->version == ~uint64_t{0}) return;
  module->version = ~uint64_t{0};
  auto& classes = tables().classes;
  for (Class** one = module->classes; one < module->classes_end; ++one)
    if (*one != nullptr) classes[(*one)->name] = *one;
  for (Class** one = module->classes; one < module->classes_end; ++one)
    if (*one != nullptr) resolve(*one);
  for (Category* category = module->categories; category < module->categories_end; ++category) {
    if (category->of == nullptr) continue;
    Class* of = classes.at(category->of);
    const auto add = [](MethodList* list, Class* to) {
      if (list != nullptr) list->next = to->methods, to->methods = list;
    };
    add(category->methods, of);
    add(category->class_methods, of->isa);
  }
}

const Slot* objc_msg_lookup_sender(Object** receiver, Selector* selector, Object*) {
  return slot(*receiver == nullptr ? nullptr : class_of(*receiver), selector, "unrecognized selector");
}

Method objc_msg_lookup_super(Super* to, Selector* selector) {
  return slot(to->of, selector, "unrecognized selector of the superclass")->method;
}

/// Null: there is none of that name.
Class* foundry_objc_class(const char* name) {
  const std::lock_guard lock(tables().mutex);
  const auto found = tables().classes.find(name);
  return found == tables().classes.end() ? nullptr : found->second;
}
Object* foundry_objc_allocate(Class* of) { return allocate(of); }
void foundry_objc_destroy(Object* object) { destroy(object); }
bool foundry_objc_responds(Object* object, Selector* selector) {
  return find(class_of(object), selector->name) != nullptr;
}
const char* foundry_objc_name(Selector* selector) { return selector->name; }
void foundry_objc_fail(const char* what, const char* of) { fail(what, of); }
long foundry_objc_live() { return live(); }

void objc_exception_throw(Object*) { fail("@throw", "expected C++ exceptions only"); }
void objc_enumerationMutation(Object*) { fail("changed while it was enumerated", ""); }

int __gxx_personality_v0(int, int, uint64_t, void*, void*);
/// Objective-C++ code unwinds as C++ does: no @catch.
int __gnustep_objcxx_personality_v0(int version, int actions, uint64_t kind, void* exception, void* context) {
  return __gxx_personality_v0(version, actions, kind, exception, context);
}

}  // extern "C"
