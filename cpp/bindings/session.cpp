// Session and Generation for Python. Calls run without the GIL; a hook takes it, and lets Ctrl-C through.
#include "engine/session.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "bindings/calls.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace foundry {
namespace {

Floats forward(Session& session, const Ids& ids, bool all_logits, const nb::object& callback, bool allow_nonfinite) {
  const ForkGuarded::Inside inside(session.model().forks());
  const size_t vocab = session.model().arch().vocab_size, rows = all_logits ? ids.size() : 1;
  const LogitsCharge charge(session.model().memory().admission(), all_logits ? rows * vocab * sizeof(float) : 0);
  std::unique_ptr<float[]> logits(new float[rows * vocab]);
  const Hooks hooks = hooks_of(callback);
  without_gil([&] {
    session.forward(
        span_of(ids), all_logits ? LogitsOf::all : LogitsOf::last,
        [&](size_t, size_t row, std::span<const float> row_logits) {
          std::memcpy(logits.get() + (all_logits ? row : 0) * vocab, row_logits.data(), row_logits.size_bytes());
        },
        hooks, undrawable(allow_nonfinite));
  });
  return all_logits ? array_of(std::move(logits), {rows, vocab}) : array_of(std::move(logits), {vocab});
}

Floats score(Session& session, const Ids& ids, const nb::object& callback) {
  const Hooks hooks = hooks_of(callback);
  const std::vector<float> scores = without_gil([&] { return session.score(span_of(ids), hooks); });
  std::unique_ptr<float[]> data(new float[scores.size()]);
  std::copy(scores.begin(), scores.end(), data.get());
  return array_of(std::move(data), {scores.size()});
}

Session::Scored score_top(Session& session, const Ids& ids, uint32_t top, const nb::object& callback) {
  const Hooks hooks = hooks_of(callback);
  return without_gil([&] { return session.score(span_of(ids), top, hooks); });
}

nb::ndarray<nb::numpy, int32_t, nb::c_contig> tokens(const Session& session) {
  const std::vector<int32_t> tokens = session.tokens();
  std::unique_ptr<int32_t[]> data(new int32_t[tokens.size()]);
  std::copy(tokens.begin(), tokens.end(), data.get());
  return array_of(std::move(data), {tokens.size()});
}

/// A layer group's parameters as kernels have them: those of the sequence, and those of the pages.
struct GroupGlobals {
  SequenceParams sequence;
  KvParams kv;
  uint32_t window;
};

std::vector<GroupGlobals> globals(Session& session) {
  std::vector<GroupGlobals> groups;
  const std::vector<SequenceParams> sequences = session.globals();
  for (size_t g = 0; g < sequences.size(); ++g) {
    const KvGeometry& geometry = session.model().memory().pools().at(g)->geometry();
    groups.push_back({sequences[g], geometry.params(), geometry.window});
  }
  return groups;
}

std::shared_ptr<Generation> generate(Session& session, const Ids& prompt, const Generation::Options& options,
                                     const nb::object& callback, std::optional<uint32_t> keep) {
  const Hooks hooks = hooks_of(callback);
  return without_gil([&] { return session.generate(span_of(prompt), options, hooks, keep.value_or(UINT32_MAX)); });
}

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

using Mask = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Generation::Next next(Generation& generation, const std::optional<Mask>& mask) {
  const Hooks hooks = hooks_of(nb::none());
  const std::span<const uint32_t> bits = mask ? std::span(mask->data(), mask->size()) : std::span<const uint32_t>();
  return without_gil([&] { return generation.next(hooks, bits); });
}

/// Owned by the core alone: it may be let go where there is no GIL.
struct Breakers {
  std::shared_ptr<const SequenceBreakers> shared;
};

void bind_generation(nb::module_& m) {
  nb::class_<Breakers>(m, "SequenceBreakers")
      .def(
          "__init__",
          [](Breakers* self, const std::vector<std::vector<int32_t>>& sequences) {
            new (self) Breakers{std::make_shared<const SequenceBreakers>(sequences)};
          },
          "sequences"_a, "Sequences of token ids, none of them empty.");
  nb::class_<DrySampling>(m, "DrySampling")
      .def(nb::init<>())
      .def_rw("multiplier", &DrySampling::multiplier)
      .def_rw("base", &DrySampling::base)
      .def_rw("allowed_length", &DrySampling::allowed_length)
      .def_rw("penalty_last_n", &DrySampling::penalty_last_n)
      .def(
          "set_breakers", [](DrySampling& dry, const Breakers& breakers) { dry.breakers = breakers.shared; },
          "breakers"_a);
  nb::class_<Sampling>(m, "Sampling")
      .def(nb::init<>())
      .def_rw("temperature", &Sampling::temperature)
      .def_rw("top_k", &Sampling::top_k)
      .def_rw("top_p", &Sampling::top_p)
      .def_rw("min_p", &Sampling::min_p)
      .def_rw("seed", &Sampling::seed)
      .def_rw("repetition_penalty", &Sampling::repetition_penalty)
      .def_rw("presence_penalty", &Sampling::presence_penalty)
      .def_rw("frequency_penalty", &Sampling::frequency_penalty)
      .def_rw("dry", &Sampling::dry)
      .def_rw("top_n_sigma", &Sampling::top_n_sigma)
      .def_rw("logit_bias", &Sampling::logit_bias);
  nb::class_<Generation::Options>(m, "GenerationOptions")
      .def(nb::init<>())
      .def_rw("max_new_tokens", &Generation::Options::max_new_tokens)
      .def_rw("sampling", &Generation::Options::sampling)
      .def_rw("stop_ids", &Generation::Options::stop_ids)
      .def_rw("top_logprobs", &Generation::Options::top_logprobs)
      .def_rw("constrained", &Generation::Options::constrained)
      .def_rw("answered", &Generation::Options::answered)
      .def_rw("keeps_cancelled", &Generation::Options::keeps_cancelled);
  nb::class_<Generation::Next>(m, "NextToken")
      .def_ro("token_id", &Generation::Next::token)
      .def_prop_ro("finish_reason",
                   [](const Generation::Next& n) -> std::optional<std::string> {
                     const char* name = finish_name(n.finish);
                     return name == nullptr ? std::nullopt : std::optional<std::string>(name);
                   })
      .def_ro("logprob", &Generation::Next::logprob)
      .def_ro("top_logprobs", &Generation::Next::top_logprobs);
  nb::class_<Generation>(m, "Generation").def("next", &next, "mask"_a = nb::none());
}

/// A call that may have to wait for another one of this session: without the GIL, and Ctrl-C is heard.
template <class F>
auto waiting(F&& call) {
  const Hooks hooks = hooks_of(nb::none());
  return without_gil([&] { return call(hooks.interrupt); });
}

void bind_observed(nb::module_& m) {
  using Observed = Sequence::Observed;
  nb::class_<Observed::Group>(m, "ObservedGroup")
      .def_ro("window", &Observed::Group::window)
      .def_ro("encoded_max_seq_len", &Observed::Group::encoded_max_seq_len)
      .def_ro("encoded_n_pages", &Observed::Group::encoded_n_pages)
      .def_ro("encoded_first_page", &Observed::Group::encoded_first_page)
      .def_ro("encoded_page_tokens", &Observed::Group::encoded_page_tokens)
      .def_ro("encoded_page_bytes", &Observed::Group::encoded_page_bytes)
      .def_ro("table_pages", &Observed::Group::table_pages)
      .def_ro("table_first", &Observed::Group::table_first)
      .def_ro("table_held", &Observed::Group::table_held)
      .def_ro("slab_bytes", &Observed::Group::slab_bytes)
      .def_ro("slab_lengths", &Observed::Group::slab_lengths)
      .def_ro("used_pages", &Observed::Group::used_pages);
  nb::class_<Observed::Recurrent>(m, "ObservedStates")
      .def_ro("kept", &Observed::Recurrent::kept)
      .def_ro("running_position", &Observed::Recurrent::running_position)
      .def_ro("held", &Observed::Recurrent::held)
      .def_ro("used_pages", &Observed::Recurrent::used_pages)
      .def_ro("slab_bytes", &Observed::Recurrent::slab_bytes);
  nb::class_<Observed>(m, "Observed")
      .def_ro("states", &Observed::recurrent)
      .def_ro("groups", &Observed::groups)
      .def_ro("capacity", &Observed::capacity)
      .def_ro("position", &Observed::position);
  nb::class_<GroupGlobals>(m, "GroupGlobals")
      .def_prop_ro("max_seq_len", [](const GroupGlobals& g) { return g.sequence.max_seq_len; })
      .def_prop_ro("n_pages", [](const GroupGlobals& g) { return g.sequence.n_pages; })
      .def_prop_ro("first_page", [](const GroupGlobals& g) { return g.sequence.first_page; })
      .def_ro("window", &GroupGlobals::window)
      .def_prop_ro("page_tokens", [](const GroupGlobals& g) { return g.kv.page_tokens; })
      .def_prop_ro("tile_tokens", [](const GroupGlobals& g) { return g.kv.tile_tokens; })
      .def_prop_ro("page_bytes", [](const GroupGlobals& g) { return g.kv.page_bytes; })
      .def_prop_ro("layer_stride_bytes", [](const GroupGlobals& g) { return g.kv.layer_stride_bytes; })
      .def_prop_ro("head_stride_bytes", [](const GroupGlobals& g) { return g.kv.head_stride_bytes; })
      .def_prop_ro("k_part_bytes", [](const GroupGlobals& g) { return g.kv.k_part_bytes; })
      .def_prop_ro("n_kv_heads", [](const GroupGlobals& g) { return g.kv.n_kv_heads; })
      .def_prop_ro("head_dim", [](const GroupGlobals& g) { return g.kv.head_dim; });
}

}  // namespace

void bind_session(nb::module_& m) {
  nb::class_<Session::Scored>(m, "Scored")
      .def_ro("logprobs", &Session::Scored::logprobs)
      .def_ro("top", &Session::Scored::top);
  bind_observed(m);
  bind_generation(m);
  nb::class_<Session>(m, "Session")
      .def("forward", &forward, "ids"_a, "all_logits"_a = false, "progress"_a = nb::none(), "allow_nonfinite"_a = false)
      .def("score", &score, "ids"_a, "progress"_a = nb::none())
      .def("score_top", &score_top, "ids"_a, "top"_a, "progress"_a = nb::none())
      .def("generate", &generate, "prompt_ids"_a, "options"_a, "progress"_a = nb::none(), "keep"_a = nb::none(),
           nb::keep_alive<0, 1>())
      .def_prop_ro("position", &Session::position)
      .def_prop_ro("capacity", [](const Session& s) { return s.figures().capacity; })
      .def_prop_ro("rewindable_to", [](const Session& s) { return s.figures().rewindable_to; })
      .def_prop_ro("reserved_tokens", [](const Session& s) { return s.figures().promised; })
      .def_prop_ro("kv_bytes", [](const Session& s) { return s.figures().kv_bytes; })
      .def_prop_ro("shared_bytes", &Session::shared_bytes)
      .def_prop_ro("pages_added", [](const Session& s) { return s.figures().pages_added; })
      .def_prop_ro("cached_tokens", &Session::cached_tokens)
      .def_prop_ro("replayed_tokens", &Session::replayed_tokens)
      .def("replay", &Session::replay, "position"_a)
      .def_prop_ro("state_bytes", [](const Session& s) { return s.figures().state_bytes; })
      .def_prop_ro("closed", &Session::closed)
      .def("tokens", &tokens)
      .def("globals", &globals)
      .def("observe", &Session::observe)
      .def("check", &Session::check)
      .def(
          "reserve", [](Session& s, uint32_t n) { waiting([&](const Poll& poll) { s.reserve(n, poll); }); },
          "n_tokens"_a)
      .def(
          "save", [](Session& s, const std::string& path) { waiting([&](const Poll& poll) { s.save(path, poll); }); },
          "path"_a)
      .def("fork", [](Session& s) { return waiting([&](const Poll& poll) { return s.fork(poll); }); })
      .def(
          "rewind", [](Session& s, uint32_t n) { waiting([&](const Poll& poll) { s.rewind(n, poll); }); }, "n_tokens"_a)
      .def(
          "hold", [](Session& s, uint32_t at) { waiting([&](const Poll& poll) { s.hold(at, poll); }); }, "position"_a)
      .def("cancel", &Session::cancel)
      .def("close", [](Session& s) { waiting([&](const Poll& poll) { s.close(poll); }); });
}

}  // namespace foundry
