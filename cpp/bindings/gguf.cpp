// A GGUF file's metadata and tensors as plain Python values.
#include "gguf/gguf.h"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <type_traits>

#include "bindings/bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace foundry {
namespace {

nb::object to_python(const MetaValue& value);

/// Strings are the file's bytes; what is not UTF-8 keeps its bytes as surrogates, as Python's file names do.
nb::object to_python(const std::string& text) {
  PyObject* decoded = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape");
  if (decoded == nullptr) throw nb::python_error();
  return nb::steal(decoded);
}

template <class T>
nb::object to_python(const std::vector<T>& array) {
  nb::list result;
  for (const auto& element : array) {
    if constexpr (std::is_same_v<T, MetaArray>)
      result.append(to_python(element.value));
    else if constexpr (std::is_same_v<T, std::string>)
      result.append(to_python(element));
    else
      result.append(nb::cast(static_cast<T>(element)));
  }
  return result;
}

nb::object to_python(const MetaValue& value) {
  return std::visit(
      [](const auto& v) -> nb::object {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(v)>>)
          return nb::cast(v);
        else
          return to_python(v);
      },
      value);
}

AnyDict metadata(const GgufFile& file) {
  nb::dict result;
  for (const auto& [key, value] : file.metadata()) result[to_python(key)] = to_python(value);
  return result;
}

/// name -> (type, (rows, cols), bytes); dimensions past the second are counted into the rows.
using TensorDict = nb::typed<nb::dict, nb::str, nb::typed<nb::tuple, nb::str, nb::typed<nb::tuple, int, int>, int>>;

TensorDict tensors(const GgufFile& file) {
  nb::dict result;
  for (const GgufTensor& tensor : file.tensors()) {
    const uint64_t cols = tensor.shape.at(0), rows = cols == 0 ? 0 : tensor.n_elements / cols;
    result[to_python(tensor.name)] = nb::make_tuple(tensor.type_name, nb::make_tuple(rows, cols), tensor.bytes);
  }
  return result;
}

}  // namespace

void bind_gguf(nb::module_& m) {
  nb::class_<GgufFile>(m, "GgufFile")
      .def(nb::new_(&GgufFile::open), "path"_a)
      .def_prop_ro("path", &GgufFile::path)
      .def_prop_ro("file_bytes", &GgufFile::file_bytes)
      .def_prop_ro("version", &GgufFile::version)
      .def_prop_ro("metadata", &metadata)
      .def_prop_ro("tensors", &tensors);
}

}  // namespace foundry
