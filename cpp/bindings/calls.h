// What calls of the core have in common: arrays, hooks, waiting without the GIL.
#pragma once
#include <nanobind/ndarray.h>

#include <memory>
#include <span>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "engine/session.h"

namespace foundry {

using Ids = nanobind::ndarray<const int32_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using Floats = nanobind::ndarray<nanobind::numpy, float, nanobind::c_contig>;

inline std::span<const int32_t> span_of(const Ids& ids) { return {ids.data(), ids.size()}; }

template <class T>
nanobind::ndarray<nanobind::numpy, T, nanobind::c_contig> array_of(std::unique_ptr<T[]> data,
                                                                   std::initializer_list<size_t> shape) {
  T* raw = data.release();
  const nanobind::capsule owner(raw, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nanobind::ndarray<nanobind::numpy, T, nanobind::c_contig>(raw, shape, owner);
}

/// Bytes of logits, or of embeddings, held by a call, promised like any memory.
class LogitsCharge {
 public:
  LogitsCharge(Admission& admission, uint64_t bytes) : admission_(admission), bytes_(bytes) {
    admission_.charge(MemoryUse::logits, bytes);
  }
  ~LogitsCharge() { admission_.credit(MemoryUse::logits, bytes_); }
  LogitsCharge(const LogitsCharge&) = delete;

 private:
  Admission& admission_;
  uint64_t bytes_;
};

/// Signals are looked at, at most every 20 ms; the callback, which may be None, is called when `done` has changed.
Hooks hooks_of(const nanobind::object& callback);

inline Undrawable undrawable(bool allow_nonfinite) { return allow_nonfinite ? Undrawable::give : Undrawable::refuse; }

}  // namespace foundry
