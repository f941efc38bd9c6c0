// Runs one attention case on one device: a history in pages, the step's K and V appended behind it, then attention.
#pragma once
#include <algorithm>

#include "kernels/support.h"
#include "kv/kv.h"

namespace foundry::kernel_tests {

constexpr uint32_t kLayers = 3, kLayer = 1;  // the layers around the one in use must stay as they are

struct AttentionInputs {
  std::vector<cases::SequenceCase> sequences;
  uint32_t heads = 0, kv_heads = 0, head_dim = 0, window = 0;
  float cap = 0;
  std::vector<float> sinks;  // by head; empty: none
  DType k_type = DType::f16, v_type = DType::f16;
  std::vector<std::vector<float>> q, k, v;  // by sequence: q of the step's rows; k and v of every position

  uint32_t kv_width() const { return kv_heads * head_dim; }
  uint32_t width() const { return heads * head_dim; }
};

inline AttentionInputs attention_inputs(const cases::Case& one) {
  AttentionInputs in;
  Random random(one.seed());
  in.sequences = one.sequences();
  in.kv_heads = one.number("kv_heads"), in.heads = one.number("heads", in.kv_heads),
  in.head_dim = one.number("head_dim");
  in.window = one.number("window", 0);
  in.cap = one.has("cap") ? one.real("cap") : 0;
  in.k_type = one.type("k_type"), in.v_type = one.type("v_type");
  for (const cases::SequenceCase& s : in.sequences) {
    in.q.push_back(random_floats(random, uint64_t{s.rows} * in.width()));
    in.k.push_back(random_floats(random, uint64_t{s.start + s.rows} * in.kv_width()));
    in.v.push_back(random_floats(random, uint64_t{s.start + s.rows} * in.kv_width()));
    for (float& x : in.q.back()) x *= 4;  // a softmax with some edge
  }
  if (one.number("sinks", 0) != 0) in.sinks = random_floats(random, in.heads);
  for (float& sink : in.sinks) sink *= 6;
  return in;
}

/// One sequence without its batch-mates.
inline AttentionInputs only(const AttentionInputs& in, size_t s) {
  AttentionInputs alone = in;
  alone.sequences = {in.sequences[s]};
  alone.q = {in.q[s]}, alone.k = {in.k[s]}, alone.v = {in.v[s]};
  return alone;
}

/// NaN at every position that lies before the windows of all rows of the step.
inline AttentionInputs with_unseen_spoilt(AttentionInputs in) {
  for (size_t s = 0; s < in.sequences.size(); ++s) {
    const uint32_t end = in.sequences[s].start + 1, unseen = in.window == 0 || end < in.window ? 0 : end - in.window;
    for (std::vector<float>* x : {&in.k[s], &in.v[s]}) std::fill_n(x->begin(), uint64_t{unseen} * in.kv_width(), NAN);
  }
  return in;
}

/// `spare` pages more than the tokens need are held by each sequence.
class AttentionRun {
 public:
  AttentionRun(TestDevice& device, const AttentionInputs& in, uint32_t page_tokens, std::string who, uint32_t spare = 0)
      : device_(device), in_(in), who_(std::move(who)) {
    geometry_.n_layers = kLayers, geometry_.n_kv_heads = in.kv_heads, geometry_.head_dim = in.head_dim;
    geometry_.page_tokens = page_tokens, geometry_.tile_tokens = std::min(page_tokens, device->info().max_tile_tokens);
    geometry_.k_type = in.k_type, geometry_.v_type = in.v_type;
    geometry_.check();
    if (!in.sinks.empty()) {
      sinks_data_ = weight_from(in.sinks, 1, in.heads);
      sinks_ = prepare(*device, sinks_data_, WeightUse::table);
    }
    for (const cases::SequenceCase& s : in.sequences) {
      const uint64_t n = geometry_.pages_for(s.start + s.rows) + spare;
      std::vector<Guarded> pages;
      for (uint64_t p = 0; p < n; ++p) pages.emplace_back(*device, geometry_.page_bytes());
      std::vector<uint64_t> addresses(n);
      for (uint64_t p = 0; p < n; ++p) addresses[p] = pages[p].address();
      pages_.push_back(std::move(pages));
      addresses_.emplace_back(*device, addresses);
    }
    step(Ops::history, 0, UINT32_MAX);
  }

  /// The step's rows, at most `rows` of each sequence at a time. [rows, heads * head_dim] by sequence.
  std::vector<std::vector<float>> run(uint32_t rows = UINT32_MAX) {
    std::vector<std::vector<float>> out(in_.sequences.size());
    uint32_t most = 0;
    for (const cases::SequenceCase& s : in_.sequences) most = std::max(most, s.rows);
    for (uint32_t from = 0; from < most; from += std::min(rows, most - from)) {
      const auto some = step(Ops::all, from, rows);
      for (size_t s = 0; s < out.size(); ++s) out[s].insert(out[s].end(), some[s].begin(), some[s].end());
    }
    return out;
  }

  /// The step's K and V alone.
  void append() { step(Ops::append, 0, UINT32_MAX); }

  const KvGeometry& geometry() const { return geometry_; }
  const std::vector<Guarded>& pages(size_t sequence) const { return pages_[sequence]; }

 private:
  enum class Ops { history, append, all };

  /// The history (K and V alone), or rows from .. from + rows of the step.
  std::vector<std::vector<float>> step(Ops ops, uint32_t from, uint32_t rows) {
    const bool history = ops == Ops::history;
    std::vector<SequenceParams> sequences;
    std::vector<float> q, k, v;
    std::vector<uint32_t> counts;
    uint32_t n_rows = 0;
    for (size_t s = 0; s < in_.sequences.size(); ++s) {
      const cases::SequenceCase& one = in_.sequences[s];
      const uint32_t start = history ? 0 : one.start + std::min(from, one.rows);
      const uint32_t n = history ? one.start : std::min(rows, one.rows - std::min(from, one.rows));
      counts.push_back(n);
      if (n == 0) continue;
      SequenceParams params{};
      params.pages = addresses_[s].address();
      params.n_pages = static_cast<uint32_t>(pages_[s].size());
      params.max_seq_len = params.n_pages * geometry_.page_tokens;
      params.first_row = n_rows, params.n_rows = n, params.start = start;
      sequences.push_back(params);
      n_rows += n;
      const auto rows_k = rows_of(in_.k[s], in_.kv_width(), start, n),
                 rows_v = rows_of(in_.v[s], in_.kv_width(), start, n);
      k.insert(k.end(), rows_k.begin(), rows_k.end());
      v.insert(v.end(), rows_v.begin(), rows_v.end());
      if (history) continue;
      const auto rows_q = rows_of(in_.q[s], in_.width(), start - one.start, n);
      q.insert(q.end(), rows_q.begin(), rows_q.end());
    }
    std::vector<std::vector<float>> results(in_.sequences.size());
    if (n_rows == 0) return results;
    const Guarded at_k(*device_, k), at_v(*device_, v), at_q(*device_, q);
    const Guarded out(*device_, uint64_t{n_rows} * in_.width() * sizeof(float));
    AttentionParams p{};
    p.n_rows = n_rows, p.n_heads = in_.heads, p.n_sequences = static_cast<uint32_t>(sequences.size()), p.layer = kLayer;
    p.scale = 1 / std::sqrt(static_cast<float>(in_.head_dim)), p.window = in_.window, p.segment_tokens = kSegmentTokens;
    p.cap = in_.cap;
    const StepShape shape{n_rows, in_.width(), p.n_sequences, in_.heads, in_.kv_heads, in_.head_dim};
    device_.step(shape, who_, [&] {
      device_->kv_append(
          {geometry_.params(), kLayer, n_rows, p.n_sequences, sequences.data(), at_k.span(), at_v.span()});
      if (ops == Ops::all)
        device_->attention({p, geometry_.params(), sequences.data(), at_q.span(), out.span(), sinks_.get()});
    });
    if (ops != Ops::all) return results;
    const std::vector<float> all = out.result(who_);
    uint32_t row = 0;
    for (size_t s = 0; s < results.size(); ++s) {
      results[s] = rows_of(all, in_.width(), row, counts[s]);
      row += counts[s];
    }
    return results;
  }

  TestDevice& device_;
  const AttentionInputs& in_;
  std::string who_;
  KvGeometry geometry_;
  WeightData sinks_data_;
  std::unique_ptr<Weight> sinks_;
  std::vector<std::vector<Guarded>> pages_;  // by sequence
  std::vector<Guarded> addresses_;
};

}  // namespace foundry::kernel_tests
