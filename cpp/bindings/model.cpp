// CompiledModel and Session for Python. Steps run without the GIL; a progress call takes it, and lets Ctrl-C through.
#include "engine/model.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstring>

#include "base/error.h"
#include "bindings/bindings.h"
#include "engine/session.h"
#include "formats/table.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace foundry {
namespace {

using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<nb::numpy, float, nb::c_contig>;

std::span<const int32_t> span_of(const Ids& ids) { return {ids.data(), ids.size()}; }

template <class T>
nb::ndarray<nb::numpy, T, nb::c_contig> array_of(std::unique_ptr<T[]> data, std::initializer_list<size_t> shape) {
  T* raw = data.release();
  const nb::capsule owner(raw, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T, nb::c_contig>(raw, shape, owner);
}

/// Signals are looked at, at most every 20 ms; the callback is called when `done` has changed.
Progress progress_of(const nb::object& callback) {
  using Clock = std::chrono::steady_clock;
  return [callback, told = int64_t{-1}, seen = Clock::now()](uint64_t done, uint64_t total) mutable {
    const bool news = !callback.is_none() && told != static_cast<int64_t>(done);
    const Clock::time_point now = Clock::now();
    if (!news && now - seen < std::chrono::milliseconds(20)) return;
    seen = now;
    told = static_cast<int64_t>(done);
    const nb::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    if (news) callback(done, total);
  };
}

DType kv_type(const std::string& name) {
  const Format* format = find_format(name);
  if (format != nullptr && format->kv != Readers::none) return format->type;
  throw ValueError("kv_dtype: expected " + format_names(&Format::kv) + ", found \"" + name + "\"");
}

IntDict plan_dict(const PlannedBytes& p) {
  nb::dict d;
  d["weights_mapped"] = p.weights_mapped;
  d["weights_private"] = p.weights_private;
  d["kv_initial"] = p.kv_initial;
  d["kv_reserved"] = p.kv_reserved;
  d["workspace"] = p.workspace;
  d["logits"] = p.logits;
  d["page_tokens"] = p.page_tokens;
  d["page_bytes"] = p.page_bytes;
  d["slab_bytes"] = p.slab_bytes;
  d["limit"] = p.limit;
  d["available"] = p.available;
  d["fits"] = p.fits;
  return d;
}

IntDict memory_dict(CompiledModel& model) {
  nb::dict d;
  for (uint32_t use = 0; use < kMemoryUses; ++use)
    d[memory_use_name(static_cast<MemoryUse>(use))] = model.ledger().used(static_cast<MemoryUse>(use));
  d["total"] = model.ledger().total();
  d["prefix_cache"] = model.prefix_cache().bytes();
  d["promised"] = model.admission().promised_bytes();
  d["limit"] = model.ledger().limit();
  return d;
}

AnyDict observed_dict(const Observed& o) {
  nb::list groups;
  for (const Observed::Group& group : o.groups) {
    nb::dict d;
    d["window"] = group.window;
    d["encoded.pages"] = group.encoded_pages;
    d["table.pages_at"] = group.table_pages_at;
    d["encoded.max_seq_len"] = group.encoded_max_seq_len;
    d["encoded.n_pages"] = group.encoded_n_pages;
    d["encoded.first_page"] = group.encoded_first_page;
    d["encoded.page_tokens"] = group.encoded_page_tokens;
    d["encoded.page_bytes"] = group.encoded_page_bytes;
    d["table.pages"] = group.table_pages;
    d["table.first"] = group.table_first;
    d["table.held"] = group.table_held;
    d["table.addresses"] = group.table_addresses;
    d["table.nulls"] = group.table_nulls;
    nb::list lengths;
    for (const uint64_t length : group.slab_lengths) lengths.append(length);
    d["pool.slab_lengths"] = lengths;
    d["pool.slab_bytes"] = group.slab_bytes;
    d["pool.used_pages"] = group.used_pages;
    groups.append(d);
  }
  nb::dict d;
  d["groups"] = groups;
  d["encoded.rope_max_seq_len"] = o.encoded_rope_max_seq_len;
  d["ledger.kv_bytes"] = o.ledger_kv_bytes;
  d["arch.max_seq_len"] = o.arch_max_seq_len;
  d["session.capacity"] = o.capacity;
  d["session.position"] = o.position;
  return d;
}

/// Waits for the step that runs, without the GIL: that step may want it.
template <class F>
auto without_gil(F&& call) {
  const nb::gil_scoped_release release;
  return call();
}

nb::typed<nb::list, IntDict> globals_list(Session& session) {
  nb::list groups;
  const auto globals = without_gil([&] { return session.globals(); });
  for (size_t g = 0; g < globals.size(); ++g) {
    const KvGeometry& geometry = session.model().pools().at(g)->geometry();
    const KvParams kv = geometry.params();
    nb::dict d;
    d["max_seq_len"] = globals[g].max_seq_len;
    d["n_pages"] = globals[g].n_pages;
    d["first_page"] = globals[g].first_page;
    d["window"] = geometry.window;
    d["page_tokens"] = kv.page_tokens;
    d["tile_tokens"] = kv.tile_tokens;
    d["page_bytes"] = kv.page_bytes;
    d["layer_stride_bytes"] = kv.layer_stride_bytes;
    d["head_stride_bytes"] = kv.head_stride_bytes;
    d["k_part_bytes"] = kv.k_part_bytes;
    d["n_kv_heads"] = kv.n_kv_heads;
    d["head_dim"] = kv.head_dim;
    groups.append(d);
  }
  return nb::typed<nb::list, IntDict>(groups);
}

/// Bytes of logits held by a call, promised like any memory.
class LogitsCharge {
 public:
  LogitsCharge(Admission& admission, uint64_t bytes) : admission_(admission), bytes_(bytes) {
    admission_.charge_logits(bytes);
  }
  ~LogitsCharge() { admission_.credit_logits(bytes_); }
  LogitsCharge(const LogitsCharge&) = delete;

 private:
  Admission& admission_;
  uint64_t bytes_;
};

Floats forward(Session& session, const Ids& ids, bool all_logits, const nb::object& callback) {
  const size_t vocab = session.model().arch().vocab_size, rows = all_logits ? ids.size() : 1;
  const LogitsCharge charge(session.model().admission(), all_logits ? rows * vocab * sizeof(float) : 0);
  std::unique_ptr<float[]> logits(new float[rows * vocab]);
  const Progress progress = progress_of(callback);
  {
    const nb::gil_scoped_release release;
    session.forward(
        span_of(ids), all_logits ? LogitsOf::all : LogitsOf::last,
        [&](size_t, size_t row, std::span<const float> row_logits) {
          std::memcpy(logits.get() + (all_logits ? row : 0) * vocab, row_logits.data(), row_logits.size_bytes());
        },
        progress);
  }
  return all_logits ? array_of(std::move(logits), {rows, vocab}) : array_of(std::move(logits), {vocab});
}

nb::typed<nb::list, Floats> forward_batch(CompiledModel& model,
                                          const std::vector<std::pair<std::shared_ptr<Session>, Ids>>& batch) {
  const size_t vocab = model.arch().vocab_size;
  std::vector<BatchItem> items;
  std::vector<std::unique_ptr<float[]>> logits;
  for (const auto& [session, ids] : batch) {
    items.push_back({session.get(), span_of(ids)});
    logits.emplace_back(new float[vocab]);
  }
  const Progress progress = progress_of(nb::none());
  {
    const nb::gil_scoped_release release;
    model.forward(
        items, LogitsOf::last,
        [&](size_t item, size_t, std::span<const float> row) {
          std::memcpy(logits[item].get(), row.data(), row.size_bytes());
        },
        progress);
  }
  nb::list result;
  for (auto& one : logits) result.append(array_of(std::move(one), {vocab}));
  return result;
}

using NextTuple = nb::typed<nb::tuple, int, std::optional<nb::str>>;

const char* finish_name(Finish finish) {
  switch (finish) {
    case Finish::none:
      return nullptr;
    case Finish::stop:
      return "stop";
    case Finish::length:
      return "length";
    case Finish::context:
      return "context";
  }
  return nullptr;
}

void bind_session(nb::module_& m) {
  nb::class_<Session>(m, "Session")
      .def("forward", &forward, "ids"_a, "all_logits"_a = false, "progress"_a = nb::none())
      .def(
          "score",
          [](Session& s, const Ids& ids, const nb::object& callback) {
            const Progress progress = progress_of(callback);
            const std::vector<float> scores = without_gil([&] { return s.score(span_of(ids), progress); });
            std::unique_ptr<float[]> data(new float[scores.size()]);
            std::copy(scores.begin(), scores.end(), data.get());
            return array_of(std::move(data), {scores.size()});
          },
          "ids"_a, "progress"_a = nb::none())
      .def(
          "begin",
          [](Session& s, const Ids& prompt, uint32_t max_new_tokens, float temperature, uint32_t top_k, float top_p,
             float min_p, uint64_t seed, std::vector<int32_t> stop_ids, const nb::object& callback) {
            const Progress progress = progress_of(callback);
            const nb::gil_scoped_release release;
            return s.begin(span_of(prompt), max_new_tokens, {temperature, top_k, top_p, min_p, seed},
                           std::move(stop_ids), progress);
          },
          "prompt_ids"_a, "max_new_tokens"_a, "temperature"_a = 0.0f, "top_k"_a = 0, "top_p"_a = 1.0f, "min_p"_a = 0.0f,
          "seed"_a = 0, "stop_ids"_a = std::vector<int32_t>{}, "progress"_a = nb::none())
      .def(
          "next",
          [](Session& s, uint64_t generation) {
            const Progress progress = progress_of(nb::none());
            const Session::Next next = without_gil([&] { return s.next(generation, progress); });
            const char* reason = finish_name(next.finish);
            return NextTuple(
                nb::make_tuple(next.token, reason == nullptr ? nb::object(nb::none()) : nb::object(nb::str(reason))));
          },
          "generation"_a)
      .def_prop_ro("position", &Session::position, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("capacity", &Session::capacity, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("rewindable_to", &Session::rewindable_to, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("reserved_tokens", &Session::reserved_tokens, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("kv_bytes", &Session::kv_bytes, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("pages_added", &Session::pages_added, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("cached_tokens", &Session::cached_tokens, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("closed", &Session::closed, nb::call_guard<nb::gil_scoped_release>())
      .def("tokens",
           [](Session& s) {
             const std::vector<int32_t> tokens = without_gil([&] { return s.tokens(); });
             std::unique_ptr<int32_t[]> data(new int32_t[tokens.size()]);
             std::copy(tokens.begin(), tokens.end(), data.get());
             return array_of(std::move(data), {tokens.size()});
           })
      .def("globals", &globals_list)
      .def("observe", [](Session& s) { return observed_dict(without_gil([&] { return s.observe(); })); })
      .def("reserve", &Session::reserve, "n_tokens"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("save", &Session::save, "path"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("fork", &Session::fork, nb::call_guard<nb::gil_scoped_release>())
      .def("rewind", &Session::rewind, "n_tokens"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("cancel", &Session::cancel)
      .def("close", &Session::close, nb::call_guard<nb::gil_scoped_release>())
      .def("_bend", &Session::bend, "place"_a, "group"_a, "by"_a, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace

void bind_model(nb::module_& m) {
  m.def("device_names", &device_names);
  bind_session(m);
  nb::class_<CompiledModel>(m, "Model")
      .def(nb::new_([](std::shared_ptr<GgufFile> file, const Graph& graph, const std::string& device, uint32_t threads,
                       uint64_t memory_limit, const std::string& k_type, const std::string& v_type,
                       uint32_t page_tokens, uint32_t slab_pages, uint32_t chunk_tokens, uint64_t prefix_cache_bytes,
                       uint64_t machine_limit, const std::string& cache_dir, const nb::object& callback) {
             ModelOptions options;
             options.device = {device, threads, cache_dir};
             options.memory_limit = memory_limit, options.machine_limit = machine_limit;
             options.k_type = kv_type(k_type), options.v_type = kv_type(v_type);
             options.page_tokens = page_tokens, options.slab_pages = slab_pages;
             options.chunk_tokens = chunk_tokens, options.prefix_cache_bytes = prefix_cache_bytes;
             const LoadProgress progress = [&callback](double fraction) {
               const nb::gil_scoped_acquire gil;
               if (PyErr_CheckSignals() != 0) throw nb::python_error();
               if (!callback.is_none()) callback(fraction);
             };
             const nb::gil_scoped_release release;
             return CompiledModel::load(std::move(file), graph, options, progress);
           }),
           "gguf"_a, "graph"_a, nb::kw_only(), "device"_a = "auto", "threads"_a = 0, "memory_limit"_a = 0,
           "k_type"_a = "f16", "v_type"_a = "f16", "page_tokens"_a = 64, "slab_pages"_a = 0, "chunk_tokens"_a = 512,
           "prefix_cache_bytes"_a = 0, "machine_limit"_a = 0, "cache_dir"_a = "", "progress"_a = nb::none())
      .def_prop_ro("arch", &CompiledModel::arch, nb::rv_policy::reference_internal)
      .def_prop_ro("device", [](const CompiledModel& model) { return model.device_info().name; })
      .def_prop_ro("isa", [](const CompiledModel& model) { return model.device_info().isa; })
      .def_prop_ro("threads", [](const CompiledModel& model) { return model.device_info().threads; })
      .def(
          "plan",
          [](const CompiledModel& model, uint32_t initial, uint32_t reserved, uint64_t rows) {
            return plan_dict(model.plan({initial, reserved, 0}, rows));
          },
          "initial_tokens"_a, "reserved_tokens"_a, "all_logits_rows"_a = 0)
      .def("memory", &memory_dict)
      .def(
          "session",
          [](CompiledModel& model, uint32_t initial, uint32_t reserved, uint32_t step) {
            return model.open_session({initial, reserved, step});
          },
          "initial_tokens"_a, "reserved_tokens"_a, "step_tokens"_a = 0)
      .def("restore", &CompiledModel::restore, "path"_a, "more_tokens"_a, "step_tokens"_a = 0,
           nb::call_guard<nb::gil_scoped_release>())
      .def("forward", &forward_batch, "batch"_a);
}

}  // namespace foundry
