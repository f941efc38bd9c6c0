// The GIL around calls of the core, at Python's end too. From Python's atexit on, a thread that would have to wait for
// the GIL is ended by Python (3.13 and before: by unwinding it, which destructors do not survive), so none of ours
// waits for it: the hook lets calls that run end, and a thread that comes back, or calls anew, then sleeps until the
// process is gone.
#pragma once
#include <nanobind/nanobind.h>

namespace foundry {

/// Python is ending: calls that run should end, and callbacks can't be made any more.
bool python_is_ending();

struct Threads;

/// The GIL is free while it lives. Once Python is ending the thread that ends it keeps the GIL, and others stay here.
class Released {
 public:
  Released();
  ~Released();
  Released(const Released&) = delete;

 private:
  PyThreadState* state_ = nullptr;
  Threads* all_ = nullptr;
};

/// Holds the GIL inside a Released scope, for a callback. CancelledError once Python is ending.
class Acquired {
 public:
  Acquired();
  ~Acquired();
  Acquired(const Acquired&) = delete;

 private:
  PyGILState_STATE state_;
};

/// Waits for the GIL to be free, not for the core: what runs meanwhile may want it.
template <class F>
auto without_gil(F&& call) {
  const Released released;
  return call();
}

/// Registers the hook with Python's atexit.
void bind_exit(nanobind::module_& m);

}  // namespace foundry
