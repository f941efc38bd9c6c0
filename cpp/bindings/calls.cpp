#include "bindings/calls.h"

#include <chrono>

#include "base/error.h"

namespace nb = nanobind;

namespace foundry {

Hooks hooks_of(const nb::object& callback) {
  using Clock = std::chrono::steady_clock;
  Hooks hooks;
  hooks.interrupt = [seen = Clock::now()]() mutable {
    if (python_is_ending()) throw CancelledError("cancelled: Python is ending");
    const Clock::time_point now = Clock::now();
    if (now - seen < std::chrono::milliseconds(20)) return;
    seen = now;
    const Acquired gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  };
  if (!callback.is_none())
    hooks.progress = [callback, told = int64_t{-1}](uint64_t done, uint64_t total) mutable {
      if (told == static_cast<int64_t>(done)) return;
      told = static_cast<int64_t>(done);
      const Acquired gil;
      callback(done, total);
    };
  return hooks;
}

}  // namespace foundry
