// Thin nanobind bindings: conversions, the GIL, errors. No logic of their own.
#pragma once
#include <nanobind/nanobind.h>

namespace foundry {

// What Python is given, told to its type checkers.
using AnyDict = nanobind::typed<nanobind::dict, nanobind::str, nanobind::any>;

void bind_errors(nanobind::module_& m);
void bind_formats(nanobind::module_& m);
void bind_files(nanobind::module_& m);
void bind_gguf(nanobind::module_& m);
void bind_graph(nanobind::module_& m);
void bind_session(nanobind::module_& m);
void bind_model(nanobind::module_& m);

}  // namespace foundry
