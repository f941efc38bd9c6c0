#include "bindings/bindings.h"
#include "bindings/gil.h"

NB_MODULE(_core, m) {
  m.doc() = "The core of Foundry. Use the package's CompiledModel and Session.";
  foundry::bind_errors(m);
  foundry::bind_exit(m);
  foundry::bind_formats(m);
  foundry::bind_files(m);
  foundry::bind_gguf(m);
  foundry::bind_graph(m);
  foundry::bind_session(m);
  foundry::bind_model(m);
}
