// Each C++ error becomes the class of the same name in foundry.errors, built with its figures.
#include <exception>

#include "base/error.h"
#include "bindings/bindings.h"

namespace nb = nanobind;

namespace foundry {
namespace {

template <class... Args>
void raise(const char* name, Args... args) {
  try {
    const nb::object type = nb::module_::import_("foundry.errors").attr(name);
    const nb::object error = type(args...);
    PyErr_SetObject(type.ptr(), error.ptr());
  } catch (nb::python_error& failed) {
    failed.restore();
  }
}

void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const ValueError& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const IoError& e) {
    PyErr_SetObject(PyExc_OSError, nb::make_tuple(e.code, e.what()).ptr());
  } catch (const ModelFormatError& e) {
    raise("ModelFormatError", e.what());
  } catch (const ContextOverflowError& e) {
    raise("ContextOverflowError", e.what(), e.needed, e.available);
  } catch (const MemoryLimitError& e) {
    raise("MemoryLimitError", e.what(), e.needed_bytes, e.available_bytes);
  } catch (const CancelledError& e) {
    raise("CancelledError", e.what());
  } catch (const NumericError& e) {
    raise("NumericError", e.what(), e.item, e.position);
  } catch (const ForkedError& e) {
    raise("ForkedError", e.what());
  } catch (const ConsistencyError& e) {
    raise("ConsistencyError", e.what());
  } catch (const Error& e) {
    raise("FoundryError", e.what());
  }
}

}  // namespace

void bind_errors(nb::module_&) { nb::register_exception_translator(translate); }

}  // namespace foundry
