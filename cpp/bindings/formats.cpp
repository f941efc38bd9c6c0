// The formats that the core computes with, as Python's lists and help need them.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/calls.h"
#include "formats/block_formats.h"
#include "formats/table.h"

namespace nb = nanobind;

namespace foundry {

void bind_formats(nb::module_& m) {
  nb::enum_<Readers>(m, "Readers", "Which devices: none, those of the host (reference and cpu), or all.")
      .value("none", Readers::none)
      .value("host", Readers::host)
      .value("all", Readers::all);
  nb::class_<Format>(m, "Format")
      .def_prop_ro("name", [](const Format& f) { return std::string(f.name); })
      .def_prop_ro(
          "file_name", [](const Format& f) { return std::string(f.file_name); }, "As GGUF writes it: Q4_0.")
      .def_prop_ro(
          "number", [](const Format& f) { return static_cast<uint32_t>(f.type); }, "GGML's type number.")
      .def_ro("block_elements", &Format::block_elements)
      .def_ro("block_bytes", &Format::block_bytes)
      .def_ro("linear", &Format::linear, "Who reads it as the weight of a linear layer.")
      .def_ro("table", &Format::table, "Who reads it as an embedding table.")
      .def_ro("kv", &Format::kv, "Who keeps K and V in it.");
  m.def(
      "formats", [] { return std::vector<Format>(formats().begin(), formats().end()); },
      "Every format of formats.def, in its order.");
  m.def(
      "dequantise",
      [](const Format& f, const nb::bytes& blocks) {
        if (blocks.size() % f.block_bytes != 0)
          throw ValueError(std::string(f.name) + ": expected a multiple of " + std::to_string(f.block_bytes) +
                           " bytes, found " + std::to_string(blocks.size()));
        const uint64_t n = blocks.size() / f.block_bytes * f.block_elements;
        auto values = std::make_unique<float[]>(n);
        dequantise_row(f.type, static_cast<const std::byte*>(blocks.data()), values.get(), n);
        return array_of(std::move(values), {n});
      },
      nb::arg("format"), nb::arg("blocks"),
      "The values of whole blocks as a file has them: f32 [n]. ValueError where they aren't whole.");
}

}  // namespace foundry
