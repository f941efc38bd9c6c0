// CompiledModel for Python, and the figures that it tells.
#include "engine/model.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "base/error.h"
#include "base/heap.h"
#include "bindings/calls.h"
#include "engine/embedding.h"
#include "formats/table.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace foundry {
namespace {

DType kv_type(const std::string& name) {
  const Format* format = find_format(name);
  if (format != nullptr && format->kv != Readers::none) return format->type;
  throw ValueError("kv_dtype: expected " + format_names(&Format::kv) + ", found \"" + name + "\"");
}

/// Bytes allocated and promised now.
struct MemoryFigures {
  uint64_t weights_mapped, weights_private, kv, page_tables, workspace, logits, sampling;
  uint64_t total, prefix_cache, promised, limit;
};

MemoryFigures memory(CompiledModel& model) {
  const ForkGuarded::Inside inside(model.forks());
  const MemoryLedger& ledger = model.ledger();
  return {ledger.used(MemoryUse::weights_mapped),
          ledger.used(MemoryUse::weights_private),
          ledger.used(MemoryUse::kv),
          ledger.used(MemoryUse::page_tables),
          ledger.used(MemoryUse::workspace),
          ledger.used(MemoryUse::logits),
          ledger.used(MemoryUse::sampling),
          ledger.total(),
          model.memory().prefixes().bytes(),
          model.memory().admission().promised_bytes(),
          ledger.limit()};
}

nb::typed<nb::list, Floats> forward_batch(CompiledModel& model,
                                          const std::vector<std::pair<std::shared_ptr<Session>, Ids>>& batch,
                                          bool allow_nonfinite) {
  const size_t vocab = model.arch().vocab_size;
  std::vector<BatchItem> items;
  std::vector<std::unique_ptr<float[]>> logits;
  for (const auto& [session, ids] : batch) {
    items.push_back({session.get(), span_of(ids)});
    logits.emplace_back(new float[vocab]);
  }
  const Hooks hooks = hooks_of(nb::none());
  without_gil([&] {
    Session::forward(
        model, items, LogitsOf::last,
        [&](size_t item, size_t, std::span<const float> row) {
          std::memcpy(logits[item].get(), row.data(), row.size_bytes());
        },
        hooks, undrawable(allow_nonfinite));
  });
  nb::list result;
  for (auto& one : logits) result.append(array_of(std::move(one), {vocab}));
  return result;
}

Floats embed(const std::shared_ptr<CompiledModel>& model, const std::vector<Ids>& texts, Pooling pooling,
             const nb::object& callback) {
  const ForkGuarded::Inside inside(model->forks());
  const size_t width = model->arch().hidden_size;
  const LogitsCharge charge(model->memory().admission(),
                            texts.size() * width * sizeof(float) + embedding_room_bytes(*model, pooling));
  std::unique_ptr<float[]> rows(new float[texts.size() * width]);
  std::vector<std::span<const int32_t>> ids;
  for (const Ids& text : texts) ids.push_back(span_of(text));
  const Hooks hooks = hooks_of(callback);
  without_gil([&] { embed_texts(model, ids, pooling, rows.get(), hooks); });
  return array_of(std::move(rows), {texts.size(), width});
}

/// Gives the pages of cached prefixes back, but for those that sessions hold, and to the system what has been freed.
/// Returns how many bytes of pages.
uint64_t drop_prefixes(CompiledModel& model) {
  const ForkGuarded::Inside inside(model.forks());
  PrefixTree& tree = model.memory().prefixes();
  const uint64_t before = tree.bytes();
  while (tree.evict_one()) {}
  const uint64_t after = tree.bytes();
  return_free_memory();
  return after < before ? before - after : 0;
}

std::vector<PrefixTree::Page> prefix_pages(CompiledModel& model) {
  const ForkGuarded::Inside inside(model.forks());
  return model.memory().prefixes().pages();
}

void bind_figures(nb::module_& m) {
  nb::class_<PrefixTree::Page>(m, "PrefixPage")
      .def_ro("depth", &PrefixTree::Page::depth)
      .def_ro("tokens", &PrefixTree::Page::tokens)
      .def_ro("children", &PrefixTree::Page::children)
      .def_ro("bytes", &PrefixTree::Page::bytes)
      .def_ro("shared", &PrefixTree::Page::shared);
  nb::class_<PlannedBytes>(m, "PlannedBytes")
      .def_prop_ro("weights_mapped", [](const PlannedBytes& p) { return p.loaded.weights.mapped; })
      .def_prop_ro("weights_private", [](const PlannedBytes& p) { return p.loaded.weights.private_; })
      .def_prop_ro("workspace", [](const PlannedBytes& p) { return p.loaded.workspace; })
      .def_prop_ro("sampling", [](const PlannedBytes& p) { return p.loaded.sampling; })
      .def_ro("kv_initial", &PlannedBytes::kv_initial)
      .def_ro("kv_reserved", &PlannedBytes::kv_reserved)
      .def_ro("states", &PlannedBytes::states)
      .def_ro("experts", &PlannedBytes::experts)
      .def_ro("experts_kept", &PlannedBytes::experts_kept)
      .def_ro("experts_count", &PlannedBytes::experts_count)
      .def_ro("page_tables", &PlannedBytes::page_tables)
      .def_ro("logits", &PlannedBytes::logits)
      .def_ro("page_tokens", &PlannedBytes::page_tokens)
      .def_ro("page_bytes", &PlannedBytes::page_bytes)
      .def_ro("slab_bytes", &PlannedBytes::slab_bytes)
      .def_ro("limit", &PlannedBytes::limit)
      .def_ro("total", &PlannedBytes::total)
      .def_ro("needed", &PlannedBytes::needed)
      .def_ro("available", &PlannedBytes::available)
      .def_ro("fits", &PlannedBytes::fits);
  nb::class_<MemoryFigures>(m, "MemoryFigures")
      .def_ro("weights_mapped", &MemoryFigures::weights_mapped)
      .def_ro("weights_private", &MemoryFigures::weights_private)
      .def_ro("kv", &MemoryFigures::kv)
      .def_ro("page_tables", &MemoryFigures::page_tables)
      .def_ro("workspace", &MemoryFigures::workspace)
      .def_ro("logits", &MemoryFigures::logits)
      .def_ro("sampling", &MemoryFigures::sampling)
      .def_ro("total", &MemoryFigures::total)
      .def_ro("prefix_cache", &MemoryFigures::prefix_cache)
      .def_ro("promised", &MemoryFigures::promised)
      .def_ro("limit", &MemoryFigures::limit);
  nb::class_<Scheduler::Counts>(m, "StepCounts")
      .def_ro("steps", &Scheduler::Counts::steps)
      .def_ro("rows", &Scheduler::Counts::rows)
      .def_ro("decode_steps", &Scheduler::Counts::decode_steps)
      .def_ro("decode_rows", &Scheduler::Counts::decode_rows);
}

void bind_options(nb::module_& m) {
  nb::class_<ModelOptions>(m, "ModelOptions", "How a model is planned and loaded.")
      .def(
          "__init__",
          [](ModelOptions* self, const std::string& device, uint32_t threads, uint64_t memory_limit,
             const std::string& k_type, const std::string& v_type, uint32_t page_tokens, uint32_t slab_pages,
             uint32_t chunk_tokens, uint64_t prefix_cache_bytes, uint64_t machine_limit, uint64_t estimated_bytes,
             const std::string& cache_dir, const std::string& kernel_library, const std::string& compiler,
             uint64_t state_cache_bytes, uint64_t expert_cache_bytes) {
            ModelOptions options;
            options.device = {device, threads, cache_dir, kernel_library, compiler};
            options.memory_limit = memory_limit, options.machine_limit = machine_limit;
            options.estimated_bytes = estimated_bytes;
            options.k_type = kv_type(k_type), options.v_type = kv_type(v_type);
            options.page_tokens = page_tokens, options.slab_pages = slab_pages;
            options.chunk_tokens = chunk_tokens, options.prefix_cache_bytes = prefix_cache_bytes;
            options.state_cache_bytes = state_cache_bytes, options.expert_cache_bytes = expert_cache_bytes;
            new (self) ModelOptions(std::move(options));
          },
          nb::kw_only(), "device"_a = "auto", "threads"_a = 0, "memory_limit"_a = 0, "k_type"_a = "f16",
          "v_type"_a = "f16", "page_tokens"_a = 64, "slab_pages"_a = 0, "chunk_tokens"_a = 512,
          "prefix_cache_bytes"_a = 0, "machine_limit"_a = 0, "estimated_bytes"_a = 0, "cache_dir"_a = "",
          "kernel_library"_a = "", "compiler"_a = "", "state_cache_bytes"_a = ModelOptions{}.state_cache_bytes,
          "expert_cache_bytes"_a = 0)
      .def_ro("estimated_bytes", &ModelOptions::estimated_bytes);
}

}  // namespace

void bind_model(nb::module_& m) {
  m.def("device_names", &device_names);
  nb::class_<GpuFound>(m, "GpuFound", "A GPU with memory of its own.")
      .def_ro("name", &GpuFound::name)
      .def_ro("model", &GpuFound::model)
      .def_ro("memory_bytes", &GpuFound::memory_bytes);
  m.def("gpus", &gpus);
  bind_figures(m);
  bind_options(m);
  m.def(
      "plan_file",
      [](std::shared_ptr<WeightSource> file, const Graph& graph, const ModelOptions& options, uint32_t initial,
         uint32_t reserved, uint64_t rows) {
        return CompiledModel::plan_file(std::move(file), graph, options, {initial, reserved, 0}, rows);
      },
      "gguf"_a, "graph"_a, "options"_a, "initial_tokens"_a, "reserved_tokens"_a, "all_logits_rows"_a = 0,
      nb::call_guard<Released>());
  nb::enum_<Pooling>(m, "Pooling").value("mean", Pooling::mean).value("cls", Pooling::cls).value("last", Pooling::last);
  nb::class_<CompiledModel>(m, "Model")
      .def(nb::new_([](std::shared_ptr<WeightSource> file, const Graph& graph, const ModelOptions& options,
                       const nb::object& callback) {
             const LoadProgress progress = [&callback](double fraction) {
               const Acquired gil;
               if (PyErr_CheckSignals() != 0) throw nb::python_error();
               if (!callback.is_none()) callback(fraction);
             };
             const Released released;
             return CompiledModel::load(std::move(file), graph, options, progress);
           }),
           "gguf"_a, "graph"_a, "options"_a, "progress"_a = nb::none())
      .def_prop_ro("arch", &CompiledModel::arch, nb::rv_policy::reference_internal)
      .def_prop_ro("device", [](const CompiledModel& model) { return model.device_info().name; })
      .def_prop_ro("isa", [](const CompiledModel& model) { return model.device_info().isa; })
      .def_prop_ro("threads", [](const CompiledModel& model) { return model.device_info().threads; })
      .def(
          "plan",
          [](const CompiledModel& model, uint32_t initial, uint32_t reserved, uint64_t rows) {
            return model.plan({initial, reserved, 0}, rows);
          },
          "initial_tokens"_a, "reserved_tokens"_a, "all_logits_rows"_a = 0)
      .def("memory", &memory)
      .def("drop_prefixes", &drop_prefixes, nb::call_guard<Released>())
      .def("prefix_pages", &prefix_pages, nb::call_guard<Released>())
      .def_prop_ro("counts", [](CompiledModel& model) { return model.scheduler().counts(); })
      .def_prop_rw("check_every_step", &CompiledModel::checks_every_step, &CompiledModel::set_check_every_step)
      .def(
          "session",
          [](std::shared_ptr<CompiledModel> model, uint32_t initial, uint32_t reserved, uint32_t step) {
            return Session::open(std::move(model), {initial, reserved, step});
          },
          "initial_tokens"_a, "reserved_tokens"_a, "growth_tokens"_a = 0)
      .def("restore", &Session::restore, "path"_a, "more_tokens"_a, "growth_tokens"_a = 0, nb::call_guard<Released>())
      .def("forward", &forward_batch, "batch"_a, "allow_nonfinite"_a = false)
      .def("embed", &embed, "texts"_a, "pooling"_a, "progress"_a = nb::none());
}

}  // namespace foundry
