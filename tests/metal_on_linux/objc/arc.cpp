// What ARC calls (clang's "Automatic Reference Counting" document has the contract of each): references, autorelease pools, weak
// references. Retaining what is gone, or releasing it once more, ends the process.
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <string_view>
#include <vector>

#include "metal_on_linux/objc/runtime.h"

namespace objc_runtime {
namespace {

struct Header {  // before each object
  std::atomic<long> references;
  uint64_t reserved;
};

std::atomic<long> alive{0};

Header* header(Object* object) { return reinterpret_cast<Header*>(object) - 1; }

/// Constant strings, tiny ones and classes are not counted.
bool counted(Object* object) {
  if (object == nullptr || (reinterpret_cast<uintptr_t>(object) & 7) != 0) return false;
  return (object->isa->info & kMeta) == 0 && std::string_view(object->isa->name) != "NSConstantString";
}

struct Weak {
  std::mutex mutex;
  std::map<Object*, std::set<Object**>> places;
};
Weak& weak() {
  static auto* made = new Weak;
  return *made;
}
void forget(Object** place) {
  if (*place == nullptr) return;
  if (const auto found = weak().places.find(*place); found != weak().places.end()) found->second.erase(place);
}

thread_local std::vector<Object*> pool;  // null: where a pool begins

void send(Object* object, const char* selector) {
  Selector with{selector, nullptr};
  if (const Method method = find(object->isa, selector))
    reinterpret_cast<void (*)(Object*, Selector*)>(method)(object, &with);
}

}  // namespace

Object* allocate(Class* of) {
  void* memory = std::calloc(1, sizeof(Header) + static_cast<size_t>(of->instance_size));
  if (memory == nullptr) throw std::bad_alloc();
  auto* object = reinterpret_cast<Object*>(static_cast<Header*>(memory) + 1);
  header(object)->references = 1;
  object->isa = of;
  ++alive;
  send(object, ".cxx_construct");
  return object;
}

void destroy(Object* object) {
  {
    const std::lock_guard lock(weak().mutex);
    if (const auto found = weak().places.find(object); found != weak().places.end()) {
      for (Object** place : found->second) *place = nullptr;
      weak().places.erase(found);
    }
  }
  Selector destruct{".cxx_destruct", nullptr};
  for (const Class* of = object->isa; of != nullptr; of = of->super) {
    const Method own = find(of, destruct.name);
    if (own != nullptr && (of->super == nullptr || own != find(of->super, destruct.name)))
      reinterpret_cast<void (*)(Object*, Selector*)>(own)(object, &destruct);
  }
  --alive;
  std::free(header(object));
}

long live() { return alive; }

}  // namespace objc_runtime

using namespace objc_runtime;

extern "C" {

Object* objc_retain(Object* object) {
  if (!counted(object)) return object;
  if (header(object)->references++ <= 0) fail("retain of an object that is gone", object->isa->name);
  return object;
}

void objc_release(Object* object) {
  if (!counted(object)) return;
  const long left = --header(object)->references;
  if (left < 0) fail("released once too often", object->isa->name);
  if (left == 0) send(object, "dealloc");
}

void objc_storeStrong(Object** place, Object* value) {
  objc_retain(value);
  Object* old = *place;
  *place = value;
  objc_release(old);
}

void* objc_autoreleasePoolPush() {
  pool.push_back(nullptr);
  return reinterpret_cast<void*>(pool.size());
}

void objc_autoreleasePoolPop(void* token) {
  while (pool.size() >= reinterpret_cast<size_t>(token)) {
    Object* object = pool.back();
    pool.pop_back();
    objc_release(object);
  }
}

Object* objc_autorelease(Object* object) {
  if (!counted(object)) return object;
  if (pool.empty()) fail("autoreleased without a pool: it leaks", object->isa->name);
  pool.push_back(object);
  return object;
}

Object* objc_alloc(Class* of) { return allocate(of); }
Object* objc_autoreleaseReturnValue(Object* object) { return objc_autorelease(object); }
Object* objc_retainAutoreleasedReturnValue(Object* object) { return objc_retain(object); }
Object* objc_unsafeClaimAutoreleasedReturnValue(Object* object) { return object; }
Object* objc_retainAutorelease(Object* object) { return objc_autorelease(objc_retain(object)); }
Object* objc_retainAutoreleaseReturnValue(Object* object) { return objc_autorelease(objc_retain(object)); }

Object* objc_storeWeak(Object** place, Object* object) {
  const std::lock_guard lock(weak().mutex);
  forget(place);
  *place = object;
  if (object != nullptr) weak().places[object].insert(place);
  return object;
}
Object* objc_initWeak(Object** place, Object* object) {
  *place = nullptr;
  return objc_storeWeak(place, object);
}
Object* objc_loadWeakRetained(Object** place) {
  const std::lock_guard lock(weak().mutex);
  return objc_retain(*place);
}
void objc_destroyWeak(Object** place) { objc_storeWeak(place, nullptr); }

Object* objc_getProperty(Object* object, Selector*, ptrdiff_t offset, bool) {
  return objc_retainAutorelease(*reinterpret_cast<Object**>(reinterpret_cast<char*>(object) + offset));
}
void objc_setProperty_nonatomic(Object* object, Selector*, Object* value, ptrdiff_t offset) {
  objc_storeStrong(reinterpret_cast<Object**>(reinterpret_cast<char*>(object) + offset), value);
}
void objc_setProperty_nonatomic_copy(Object* object, Selector* selector, Object* value, ptrdiff_t offset) {
  objc_setProperty_nonatomic(object, selector, value, offset);  // what is copied here never changes
}
void objc_setProperty_atomic(Object* object, Selector* selector, Object* value, ptrdiff_t offset) {
  objc_setProperty_nonatomic(object, selector, value, offset);
}
void objc_setProperty(Object* object, Selector* selector, ptrdiff_t offset, Object* value, bool, bool) {
  objc_setProperty_nonatomic(object, selector, value, offset);
}

}  // extern "C"
