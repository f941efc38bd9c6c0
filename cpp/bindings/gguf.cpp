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

/// Strings are the file's bytes; what is not UTF-8 keeps its bytes as surrogates, as Python's file names do.
nb::object to_python(std::string_view text) {
  PyObject* decoded = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape");
  if (decoded == nullptr) throw nb::python_error();
  return nb::steal(decoded);
}

/// An array of the metadata for Python: it keeps the file, where its elements lie.
struct ArrayInFile {
  std::shared_ptr<const GgufFile> file;
  MetaArray array;
};

using AnyList = nb::typed<nb::list, nb::any>;

AnyList to_list(const MetaArray& array);

/// Arrays inside arrays become lists: they are asked for with the array that holds them.
nb::object to_python(const MetaValue& value) {
  return std::visit(
      [](const auto& v) -> nb::object {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, MetaArray>)
          return to_list(v);
        else if constexpr (std::is_same_v<T, std::string_view>)
          return to_python(v);
        else
          return nb::cast(v);
      },
      value);
}

AnyList to_list(const MetaArray& array) {
  nb::list result;
  array.each([&](const MetaValue& value) { result.append(to_python(value)); });
  return result;
}

AnyDict metadata(const std::shared_ptr<GgufFile>& file) {
  nb::dict result;
  for (const auto& [key, value] : file->metadata()) {
    const auto* array = std::get_if<MetaArray>(&value);
    result[to_python(std::string_view(key))] =
        array == nullptr ? to_python(value) : nb::cast(ArrayInFile{file, *array});
  }
  return result;
}

/// name -> (type, (rows, cols), bytes); dimensions past the second are counted into the rows.
using TensorDict = nb::typed<nb::dict, nb::str, nb::typed<nb::tuple, nb::str, nb::typed<nb::tuple, int, int>, int>>;

TensorDict tensors(const GgufFile& file) {
  nb::dict result;
  for (const GgufTensor& tensor : file.tensors()) {
    const uint64_t cols = tensor.shape.at(0), rows = cols == 0 ? 0 : tensor.n_elements / cols;
    result[to_python(std::string_view(tensor.name))] =
        nb::make_tuple(tensor.type_name, nb::make_tuple(rows, cols), tensor.bytes);
  }
  return result;
}

}  // namespace

void bind_gguf(nb::module_& m) {
  nb::class_<ArrayInFile>(m, "MetadataArray",
                          "An array of a file's metadata, left in the file until its elements are asked for.")
      .def_prop_ro("element_type", [](const ArrayInFile& a) { return meta_type_name(a.array.type()); })
      .def_prop_ro(
          "bytes", [](const ArrayInFile& a) { return a.array.bytes(); }, "Of its elements, in the file.")
      .def("__len__", [](const ArrayInFile& a) { return a.array.size(); })
      .def("__iter__",
           [](const ArrayInFile& a) -> nb::typed<nb::iterator, nb::any> { return nb::iter(to_list(a.array)); })
      .def("__eq__",
           [](const ArrayInFile& a, const nb::object& other) {
             return other.is_none() ? false : to_list(a.array).equal(nb::list(other));
           })
      .def("__repr__",
           [](const ArrayInFile& a) {
             return "<" + std::to_string(a.array.size()) + " of " + meta_type_name(a.array.type()) + ">";
           })
      .def("to_list", [](const ArrayInFile& a) { return to_list(a.array); }, "All elements as plain values.");
  nb::class_<GgufFile, WeightSource>(m, "GgufFile")
      .def(nb::new_([](const std::string& path, bool header_only) {
             return header_only ? GgufFile::open_header(path) : GgufFile::open(path);
           }),
           "path"_a, "header_only"_a = false)
      .def_prop_ro("path", &GgufFile::path)
      .def_prop_ro("file_bytes", &GgufFile::file_bytes)
      .def_prop_ro("version", &GgufFile::version)
      .def_prop_ro("metadata", &metadata)
      .def_prop_ro("metadata_bytes", &GgufFile::metadata_bytes)
      .def_prop_ro("tensors", &tensors);
}

}  // namespace foundry
