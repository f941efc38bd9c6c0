#include "engine/embedding.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"

namespace foundry {
namespace {

constexpr size_t kTexts = 32;  // at once, at most: each holds a page, however short it is

using Texts = std::span<const std::span<const int32_t>>;

void validate(const CompiledModel& model, Texts texts) {
  const Arch& arch = model.arch();
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string text = "text " + std::to_string(i) + ": ";
    if (texts[i].empty()) throw ValueError(text + "expected at least one token, found none");
    for (const int32_t id : texts[i])
      if (id < 0 || static_cast<uint32_t>(id) >= arch.vocab_size)
        throw ValueError(text + "expected ids from 0 to " + std::to_string(arch.vocab_size - 1) + ", found " +
                         std::to_string(id));
    if (texts[i].size() > arch.max_seq_len)
      throw ContextOverflowError(text + "needed " + std::to_string(texts[i].size()) + " tokens, available " +
                                     std::to_string(arch.max_seq_len) + " of the model's context",
                                 static_cast<int64_t>(texts[i].size()), arch.max_seq_len);
  }
}

/// What of a text runs: for its first row the first token, which sees itself alone.
std::span<const int32_t> run_of(std::span<const int32_t> text, Pooling pooling) {
  return pooling == Pooling::cls ? text.first(1) : text;
}

/// Sessions for the first of these texts: as many as one step has rows for, and as memory can promise; at least one.
std::vector<std::shared_ptr<Session>> open_some(const std::shared_ptr<CompiledModel>& model, Texts texts,
                                                Pooling pooling) {
  std::vector<std::shared_ptr<Session>> sessions;
  uint64_t rows = 0;
  for (const auto& text : texts.first(std::min(texts.size(), kTexts))) {
    const uint64_t n = run_of(text, pooling).size();
    rows += n;
    if (!sessions.empty() && rows > model->runner().max_rows()) break;
    try {
      sessions.push_back(Session::open(model, {0, static_cast<uint32_t>(n), 0}));
    } catch (const MemoryLimitError&) {
      if (sessions.empty()) throw;
      break;  // it comes next, when these have given their pages back
    }
  }
  return sessions;
}

/// The mean of a text's rows, which come in their order: so it has one order of summation.
class Mean {
 public:
  explicit Mean(size_t width) : sums_(width) {}
  void add(size_t row, std::span<const float> values) {
    if (row == 0) std::fill(sums_.begin(), sums_.end(), 0.0);
    for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += values[i];
  }
  void write(size_t rows, float* out) const {
    for (const double sum : sums_) *out++ = static_cast<float>(sum / static_cast<double>(rows));
  }

 private:
  std::vector<double> sums_;
};

}  // namespace

uint64_t embedding_room_bytes(const CompiledModel& model, Pooling pooling) {
  return pooling == Pooling::mean ? model.arch().hidden_size * sizeof(double) : 0;
}

void embed_texts(const std::shared_ptr<CompiledModel>& model, Texts texts, Pooling pooling, float* out,
                 const Hooks& hooks) {
  const ForkGuarded::Inside inside(model->forks());
  model->scheduler().refuse_callback();
  const uint32_t width = model->runner().width(Gives::hidden);
  if (width == 0) throw ValueError("embed: expected a model whose head begins with a norm, found none");
  validate(*model, texts);
  uint64_t total = 0, before = 0;
  for (const auto& text : texts) total += run_of(text, pooling).size();
  Hooks heard = hooks;
  if (hooks.progress) heard.progress = [&](uint64_t done, uint64_t) { hooks.progress(before + done, total); };
  Mean mean(pooling == Pooling::mean ? width : 0);
  for (size_t first = 0; first < texts.size();) {
    const auto sessions = open_some(model, texts.subspan(first), pooling);
    const Texts these = texts.subspan(first, sessions.size());
    std::vector<BatchItem> items;
    uint64_t rows = 0;
    for (size_t i = 0; i < sessions.size(); ++i) {
      items.push_back({sessions[i].get(), run_of(these[i], pooling)});
      rows += items.back().tokens.size();
    }
    const auto sink = [&](size_t item, size_t row, std::span<const float> values) {
      float* of_text = out + (first + item) * width;
      if (pooling != Pooling::mean) {
        std::copy(values.begin(), values.end(), of_text);
        return;
      }
      mean.add(row, values);
      if (row + 1 == these[item].size()) mean.write(these[item].size(), of_text);
    };
    try {
      Session::forward(*model, items, pooling == Pooling::mean ? LogitsOf::all : LogitsOf::last, sink, heard,
                       Undrawable::refuse, Gives::hidden);
    } catch (const NumericError& error) {
      throw NumericError("text " + std::to_string(first + error.item) + ": " + error.what(), first + error.item,
                         error.position);
    }
    before += rows;
    first += sessions.size();
  }
}

}  // namespace foundry
