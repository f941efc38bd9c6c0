// Thin nanobind bindings: conversions, the GIL, errors. No logic of their own.
#pragma once
#include <nanobind/nanobind.h>

namespace foundry {

void bind_errors(nanobind::module_& m);
void bind_gguf(nanobind::module_& m);
void bind_graph(nanobind::module_& m);
void bind_model(nanobind::module_& m);

}  // namespace foundry
