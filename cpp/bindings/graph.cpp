#include "graph/graph.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace foundry {

void bind_graph(nb::module_& m) {
  nb::class_<Arch>(m, "Arch")
      .def_rw("name", &Arch::name)
      .def_rw("n_layers", &Arch::n_layers)
      .def_rw("n_heads", &Arch::n_heads)
      .def_rw("n_kv_heads", &Arch::n_kv_heads)
      .def_rw("head_dim", &Arch::head_dim)
      .def_rw("hidden_size", &Arch::hidden_size)
      .def_rw("vocab_size", &Arch::vocab_size)
      .def_rw("max_seq_len", &Arch::max_seq_len)
      .def("__repr__", [](const Arch& a) {
        return "Arch(name='" + a.name + "', n_layers=" + std::to_string(a.n_layers) +
               ", n_heads=" + std::to_string(a.n_heads) + ", n_kv_heads=" + std::to_string(a.n_kv_heads) +
               ", head_dim=" + std::to_string(a.head_dim) + ", hidden_size=" + std::to_string(a.hidden_size) +
               ", vocab_size=" + std::to_string(a.vocab_size) + ", max_seq_len=" + std::to_string(a.max_seq_len) + ")";
      });

  nb::class_<Graph>(m, "Graph")
      .def(nb::init<>())
      .def_rw("arch", &Graph::arch)
      .def("weight", &Graph::weight, "name"_a, "rows"_a, "cols"_a)
      .def("part", &Graph::part, "name"_a, "rows"_a, "cols"_a, "first"_a, "whole"_a)
      .def("constant", &Graph::constant, "what"_a, "values"_a)
      .def("experts", &Graph::experts, "name"_a, "experts"_a, "rows"_a, "cols"_a)
      .def(
          "add_group",
          [](Graph& g, uint32_t n_layers, uint32_t n_kv_heads, uint32_t head_dim, uint32_t window) {
            return g.add_group({n_layers, n_kv_heads, head_dim, window});
          },
          "n_layers"_a, "n_kv_heads"_a, "head_dim"_a, "window"_a = 0)
      .def(
          "set_recurrent",
          [](Graph& g, uint32_t n_layers, std::vector<uint32_t> widths) {
            g.recurrent = {n_layers, std::move(widths)};
          },
          "n_layers"_a, "widths"_a, "Layers with a state, each of parts of so many values.")
      .def("embed", &Graph::embed, "table"_a, "scale"_a, "name"_a)
      .def("rms_norm", &Graph::rms_norm, "x"_a, "scale"_a, "eps"_a, "name"_a)
      .def("layer_norm", &Graph::layer_norm, "x"_a, "scale"_a, "bias"_a, "eps"_a, "name"_a)
      .def("linear", &Graph::linear, "x"_a, "weight"_a, "bias"_a, "name"_a)
      .def(
          "rope",
          [](Graph& g, ValueId x, uint32_t n_heads, uint32_t head_dim, uint32_t rot_dim, float base, float scale,
             uint32_t style, WeightId factors, const std::string& name, float magnitude, float temperature,
             uint32_t temperature_length) {
            return g.rope(x,
                          {n_heads, head_dim, rot_dim, style, base, scale, magnitude, temperature, temperature_length},
                          factors, name);
          },
          "x"_a, "n_heads"_a, "head_dim"_a, "rot_dim"_a, "base"_a, "scale"_a, "style"_a, "factors"_a, "name"_a,
          "magnitude"_a = 1.0f, "temperature"_a = 0.0f, "temperature_length"_a = 0)
      .def("kv_append", &Graph::kv_append, "k"_a, "v"_a, "group"_a, "layer"_a, "name"_a)
      .def(
          "attention",
          [](Graph& g, ValueId q, uint32_t n_heads, float scale, uint32_t group, uint32_t layer,
             const std::string& name, float cap,
             WeightId sinks) { return g.attention(q, {n_heads, scale, group, layer, cap}, name, sinks); },
          "q"_a, "n_heads"_a, "scale"_a, "group"_a, "layer"_a, "name"_a, "cap"_a = 0.0f, "sinks"_a = kNone)
      .def("swiglu", &Graph::swiglu, "gate"_a, "up"_a, "name"_a)
      .def("geglu", &Graph::geglu, "gate"_a, "up"_a, "name"_a)
      .def(
          "swiglu_clamped",
          [](Graph& g, ValueId gate, ValueId up, float alpha, float limit, const std::string& name) {
            return g.swiglu_clamped(gate, up, {alpha, limit}, name);
          },
          "gate"_a, "up"_a, "alpha"_a, "limit"_a, "name"_a)
      .def("gelu", &Graph::gelu, "x"_a, "name"_a)
      .def("add", &Graph::add, "a"_a, "b"_a, "name"_a)
      .def(
          "scale",
          [](Graph& g, ValueId x, float scale, float cap, const std::string& name) {
            return g.scale(x, {scale, cap}, name);
          },
          "x"_a, "scale"_a, "cap"_a, "name"_a)
      .def(
          "resize_heads",
          [](Graph& g, ValueId x, uint32_t n_heads, uint32_t from, uint32_t to, const std::string& name) {
            return g.resize_heads(x, {n_heads, from, to}, name);
          },
          "x"_a, "n_heads"_a, "from_dim"_a, "to_dim"_a, "name"_a)
      .def(
          "route",
          [](Graph& g, ValueId scores, uint32_t n_used, uint32_t gate, bool normalise, const std::string& name,
             float scale, WeightId bias, uint32_t n_groups, uint32_t n_groups_used) {
            const Graph::Routed made =
                g.route(scores, {n_used, gate, normalise ? 1u : 0u, scale, n_groups, n_groups_used}, bias, name);
            return std::pair(made.chosen, made.weights);
          },
          "scores"_a, "n_used"_a, "gate"_a, "normalise"_a, "name"_a, "scale"_a = 1.0f, "bias"_a = kNone,
          "n_groups"_a = 1, "n_groups_used"_a = 1, "Gate 0: softmax, 1: sigmoid. (chosen, weights)")
      .def("linear_routed", &Graph::linear_routed, "x"_a, "chosen"_a, "weight"_a, "bias"_a, "name"_a)
      .def("sum_routed", &Graph::sum_routed, "y"_a, "weights"_a, "name"_a)
      .def(
          "short_conv",
          [](Graph& g, ValueId x, uint32_t layer, bool gated, WeightId taps, WeightId bias, const std::string& name,
             uint32_t part,
             bool silu) { return g.short_conv(x, {layer, gated ? 1u : 0u, part, silu ? 1u : 0u}, taps, bias, name); },
          "x"_a, "layer"_a, "gated"_a, "taps"_a, "bias"_a, "name"_a, "part"_a = 0, "silu"_a = false)
      .def(
          "gated_delta",
          [](Graph& g, ValueId mixed, ValueId alpha, ValueId beta, ValueId z, uint32_t layer, uint32_t part,
             uint32_t k_heads, uint32_t v_heads, uint32_t head_k, uint32_t head_v, WeightId decay, WeightId bias,
             WeightId norm, float eps, float qk_eps, const std::string& name) {
            return g.gated_delta({mixed, alpha, beta, z}, {layer, part, k_heads, v_heads, head_k, head_v, eps, qk_eps},
                                 {decay, bias, norm}, name);
          },
          "mixed"_a, "alpha"_a, "beta"_a, "z"_a, "layer"_a, "part"_a, "k_heads"_a, "v_heads"_a, "head_k"_a, "head_v"_a,
          "decay"_a, "bias"_a, "norm"_a, "eps"_a, "qk_eps"_a, "name"_a)
      .def(
          "sigmoid_gate",
          [](Graph& g, ValueId x, ValueId gate, uint32_t n_heads, const std::string& name) {
            return g.sigmoid_gate(x, gate, {n_heads}, name);
          },
          "x"_a, "gate"_a, "n_heads"_a, "name"_a)
      .def("select_rows", &Graph::select_rows, "x"_a, "name"_a)
      .def(
          "set_logits", [](Graph& g, ValueId value) { g.logits = value; }, "value"_a)
      .def("serialize", &Graph::serialize)
      .def_static("parse", &Graph::parse, "text"_a)
      .def("verify", [](const Graph& g) { verify(g); })
      .def("fused", [](const Graph& g) { return fuse(g, {}); })
      .def(
          "weight_names",
          [](const Graph& g) {
            nb::typed<nb::list, nb::str> names;
            for (const WeightRef& weight : g.weights)
              if (weight.constant.empty()) names.append(weight.name);
            return names;
          },
          "Of the tensors that the graph reads, all or a part of them.")
      .def_prop_ro("n_ops", [](const Graph& g) { return g.ops.size(); })
      .def("op_names", [](const Graph& g) {
        nb::typed<nb::list, nb::str> names;
        for (const Op& op : g.ops) names.append(op.kind_name());
        return names;
      });
}

}  // namespace foundry
