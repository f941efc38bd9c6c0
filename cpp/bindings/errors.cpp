// Each C++ error becomes the class of the same name in foundry.errors, built with its figures.
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "base/error.h"
#include "bindings/bindings.h"

namespace nb = nanobind;

namespace foundry {
namespace {

/// A message may hold a file's bytes: what is not UTF-8 is shown, and is no error of its own.
nb::object text(const char* message) {
  PyObject* decoded = PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)), "backslashreplace");
  if (decoded == nullptr) throw nb::python_error();
  return nb::steal(decoded);
}

template <class... Args>
void raise(const char* name, const char* message, Args... args) {
  try {
    const nb::object type = nb::module_::import_("foundry.errors").attr(name);
    const nb::object error = type(text(message), args...);
    PyErr_SetObject(type.ptr(), error.ptr());
  } catch (nb::python_error& failed) {
    failed.restore();
  }
}

void raise_value_error(const char* message) {
  try {
    PyErr_SetObject(PyExc_ValueError, text(message).ptr());
  } catch (nb::python_error& failed) {
    failed.restore();
  }
}

/// Python takes the subclass from errno: FileNotFoundError, PermissionError and so on.
void raise_os_error(int code, const char* reason, const std::string& path) {
  try {
    const nb::object name = path.empty() ? nb::none() : nb::steal(PyUnicode_DecodeFSDefault(path.c_str()));
    PyErr_SetObject(
        PyExc_OSError,
        (path.empty() ? nb::make_tuple(code, text(reason)) : nb::make_tuple(code, text(reason), name)).ptr());
  } catch (nb::python_error& failed) {
    failed.restore();
  }
}

void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const ValueError& e) {
    raise_value_error(e.what());
  } catch (const IoError& e) {
    raise_os_error(e.code, e.reason.c_str(), e.path);
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
  } catch (const std::bad_alloc&) {
    raise("MemoryLimitError", "the system refused memory that this call needed", 0, 0);
  } catch (const std::length_error&) {  // of a container: more than there can be
    raise("MemoryLimitError", "more memory was needed than a process can have", 0, 0);
  } catch (const std::system_error& e) {
    raise_os_error(e.code().value(), e.what(), "");
  }
}

}  // namespace

void bind_errors(nb::module_&) { nb::register_exception_translator(translate); }

}  // namespace foundry
