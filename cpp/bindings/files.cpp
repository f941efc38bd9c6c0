// Where weights come from, for Python, which says what lies where in files that are not GGUF.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/error.h"
#include "bindings/bindings.h"
#include "files/arranged_files.h"
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
  nb::class_<ArrangedFiles, WeightSource>(m, "ArrangedFiles", "Files, and weights that are made of what they have.")
      .def(nb::new_([](const std::shared_ptr<WeightSource>& files) { return std::make_shared<ArrangedFiles>(files); }),
           "files"_a)
      .def(
          "add",
          [](ArrangedFiles& files, const std::string& name, std::vector<std::string> parts, uint64_t matrices,
             std::vector<uint32_t> rows, std::vector<uint32_t> cols, bool transposed, bool minus_exp) {
            files.add(name, {std::move(parts), matrices, transposed, std::move(rows), std::move(cols), minus_exp});
            const WeightView view = files.view(name);
            return std::make_pair(view.rows, view.cols);
          },
          "name"_a, "parts"_a, "matrices"_a = 1, "rows"_a = std::vector<uint32_t>(), "cols"_a = std::vector<uint32_t>(),
          "transposed"_a = false, "minus_exp"_a = false,
          "A weight made of parts: a tensor for each matrix, or one that has so many. Rows and columns say which of "
          "theirs each is. Returns its rows, of all matrices, and columns. ModelFormatError where they can't be.")
      .def(
          "add_mxfp4",
          [](ArrangedFiles& files, const std::string& name, const std::string& nibbles, const std::string& scales,
             uint64_t matrices, uint64_t rows, uint64_t cols, std::vector<uint32_t> order) {
            files.add_mxfp4(name, nibbles, scales, matrices, rows, cols, std::move(order));
            const WeightView view = files.view(name);
            return std::make_pair(view.rows, view.cols);
          },
          "name"_a, "nibbles"_a, "scales"_a, "matrices"_a, "rows"_a, "cols"_a, "order"_a,
          "A weight in MXFP4 of nibbles and scales that lie apart; likewise.");
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
      .def("add_bytes", &TensorFile::add_bytes, "name"_a, "bytes"_a, "offset"_a,
           "Bytes that something is made of. ModelFormatError where they can't be.")
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
