// Where weights come from, for Python, which says what lies where in files that are not GGUF.
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/error.h"
#include "bindings/bindings.h"
#include "files/joined_files.h"
#include "files/tensor_file.h"
#include "formats/table.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace foundry {

void bind_files(nb::module_& m) {
  nb::class_<WeightSource>(m, "WeightSource", "A model's weights: a file, or several.")
      .def_prop_ro("path", &WeightSource::path);
  nb::class_<JoinedFiles, WeightSource>(m, "JoinedFiles", "Several files that are one model.")
      .def(nb::new_([](const std::vector<std::shared_ptr<WeightSource>>& files) {
             return std::make_shared<JoinedFiles>(
                 std::vector<std::shared_ptr<const WeightSource>>(files.begin(), files.end()));
           }),
           "files"_a);
  nb::class_<TensorFile, WeightSource>(m, "TensorFile", "A file of tensors whose table its reader gives.")
      .def(nb::new_([](const std::string& path, bool header_only) {
             return std::make_shared<TensorFile>(path, header_only);
           }),
           "path"_a, "header_only"_a = false)
      .def_prop_ro("file_bytes", &TensorFile::file_bytes)
      .def(
          "read",
          [](const TensorFile& file, uint64_t offset, uint64_t bytes) {
            const std::string found = file.read(offset, bytes);
            return nb::bytes(found.data(), found.size());
          },
          "offset"_a, "bytes"_a, "Bytes from there on; fewer only where the file ends.")
      .def(
          "add",
          [](TensorFile& file, const std::string& name, const std::string& type, uint64_t rows, uint64_t cols,
             uint64_t offset, float plus) {
            const Format* format = find_format(type);
            if (format == nullptr) throw ValueError("type: expected one of the formats, found \"" + type + "\"");
            file.add(name, format->type, rows, cols, offset, plus);
          },
          "name"_a, "type"_a, "rows"_a, "cols"_a, "offset"_a, "plus"_a = 0.0f,
          "Its bytes are rows x cols of the type from there on; plus is added to each value of a vector. "
          "ModelFormatError where they can't be.");
}

}  // namespace foundry
