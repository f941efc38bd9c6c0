// The formats that the core computes with, as Python's lists and help need them.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bindings/bindings.h"
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
      "Every format of formats.def, wide ones first.");
}

}  // namespace foundry
