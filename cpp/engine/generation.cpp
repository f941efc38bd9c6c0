// Session's generation and scoring: loops over steps, with no Python in them.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "engine/session.h"

namespace foundry {

void Session::forward(std::span<const int32_t> tokens, LogitsOf which, const LogitsSink& sink, const Hooks& hooks,
                      Undrawable undrawable) {
  const std::array items{BatchItem{this, tokens}};
  model_->forward(items, which, sink, hooks, undrawable);
}

uint64_t Session::begin(std::span<const int32_t> prompt, uint32_t max_new_tokens, const Sampling& sampling,
                        std::vector<int32_t> stop_ids, const Hooks& hooks) {
  check(sampling);
  const ForkGuarded::Inside inside(model_->forks());
  const uint64_t cancels = cancels_;
  const std::array waiting{BatchItem{this, {}, cancels}};
  const Poll poll = [&] { model_->poll_of(waiting, hooks); };
  const CompiledModel::Turn turn(*model_, poll);
  const FairGuard lock(mutex_, poll);
  quiesce();
  logits_.resize(model_->arch().vocab_size);
  std::vector<int32_t> rows;
  rows.reserve(prompt.size() + 1);
  if (pending_ >= 0) rows.push_back(pending_);
  rows.insert(rows.end(), prompt.begin(), prompt.end());
  ++generation_;
  cached_tokens_ = tokens_.empty() ? take_cached(rows) : 0;
  const std::array items{BatchItem{this, std::span(rows).subspan(cached_tokens_), cancels}};
  try {
    model_->run(
        items, LogitsOf::last,
        [this](size_t, size_t, std::span<const float> logits) {
          std::copy(logits.begin(), logits.end(), logits_.begin());
        },
        hooks);
  } catch (...) {
    if (cached_tokens_ != 0) drop_cached();
    cached_tokens_ = 0;
    throw;
  }
  model_->prefix_cache().insert(tokens_, tables_);
  show();
  pending_ = -1;
  sampling_ = sampling;
  stop_ids_ = std::move(stop_ids);
  left_ = max_new_tokens;
  finished_ = Finish::none;
  generation_cancels_ = cancels;
  return generation_;
}

uint32_t Session::take_cached(std::span<const int32_t> rows) {
  if (rows.size() < 2) return 0;
  unread_ = nullptr;  // rewound to nothing before it was read
  tokens_.reserve(rows.size());
  for (size_t g = 0; g < tables_.size(); ++g)  // pages that make room for cached ones stay promised
    next_claims_[g] = tables_[g].pool().geometry().most_pages(reserved_) + 1;
  model_->admission().settle(claims_, next_claims_);
  claims_.swap(next_claims_);
  uint32_t n = 0;
  try {
    n = model_->prefix_cache().match(rows.first(rows.size() - 1), tables_);  // one is fed, for its logits
  } catch (...) {                                                            // tables may have moved
    settle();
    encode_globals();
    throw;
  }
  tokens_.assign(rows.begin(), rows.begin() + n);
  settle();
  encode_globals();
  return n;
}

/// Back to nothing. Shared pages stay in the table, for writing to one copies it; but a table that begins with holes goes.
void Session::drop_cached() {
  tokens_.clear();
  for (PageTable& table : tables_)
    if (table.first() != 0) table.truncate(0);
  settle();
  encode_globals();
}

Session::Next Session::next(uint64_t generation, const Hooks& hooks) {
  const ForkGuarded::Inside inside(model_->forks());
  const std::array waiting{BatchItem{this, {}, generation_cancels_}};
  const Poll poll = [&] { model_->poll_of(waiting, hooks); };
  const CompiledModel::Turn turn(*model_, poll);
  const FairGuard lock(mutex_, poll);
  require_open();
  if (generation != generation_)
    throw ValueError("this generation has ended: another call has gone on with its session");
  if (finished_ != Finish::none) return {-1, finished_};
  if (left_ == 0) return {-1, finished_ = Finish::length};
  if (pending_ >= 0 && tokens_.size() >= model_->arch().max_seq_len) return {-1, finished_ = Finish::context};
  const int32_t token = next_token(hooks);
  if (std::find(stop_ids_.begin(), stop_ids_.end(), token) != stop_ids_.end()) {
    drop_ahead();
    return {-1, finished_ = Finish::stop};
  }
  --left_;
  pending_ = token;
  return {token, Finish::none};
}

/// Drawn at the position that it will take: the same seed and history give the same token, whatever came between.
int32_t Session::next_token(const Hooks& hooks) {
  StepRunner& runner = *model_->runner_;
  if (pending_ >= 0) {
    if (cancels_ != generation_cancels_) {
      drop_ahead();
      throw CancelledError("cancelled; the session is where it was before this call");
    }
    while (start_ahead()) {}
    if (!ahead_.empty()) return next_ahead(hooks);
    const std::array items{BatchItem{this, std::span<const int32_t>(&pending_, 1), generation_cancels_}};
    model_->run(
        items, LogitsOf::last,
        [this](size_t, size_t, std::span<const float> logits) {
          std::copy(logits.begin(), logits.end(), logits_.begin());
        },
        hooks);
    pending_ = -1;
  }
  const SampleParams params = params_at(sampling_, tokens_.size());
  const int32_t token = runner.steps_ahead() == 0 ? sample(logits_, params, candidates_) : runner.draw(logits_, params);
  if (token < 0) throw undrawable_error(0, tokens_.size() - 1);
  return token;
}

bool Session::start_ahead() {
  StepRunner& runner = *model_->runner_;
  const uint64_t position = tokens_.size() + ahead_.size();  // of what goes in
  if (ahead_.size() >= runner.steps_ahead() || ahead_.size() >= left_ || position >= model_->arch().max_seq_len)
    return false;
  // Windows take pages of their own again as a call goes on, and a call here is a token.
  for (const PageTable& table : tables_)
    if (table.pool().geometry().window != 0) return false;
  try {
    read_saved();
    ahead_.reserve(runner.steps_ahead());
    if (position + 1 > tokens_.capacity()) tokens_.reserve(2 * tokens_.capacity() + 1);
    grow_to(position + 1);
  } catch (const Error&) {
    if (ahead_.empty()) throw;
    return false;
  }
  const RowRun run{globals_, {&pending_, 1}, static_cast<uint32_t>(position), rope_max_seq_len_};
  const auto step =
      runner.start(run, params_at(sampling_, position + 1), pending_, ahead_.empty() ? nullptr : &ahead_.back());
  if (!step) return false;
  ahead_.push_back(*step);
  return true;
}

int32_t Session::next_ahead(const Hooks& hooks) {
  int32_t token = -1;
  try {
    stepping_ = true;  // the callback may look, and change nothing
    if (hooks.interrupt) hooks.interrupt();
    if (hooks.progress) hooks.progress(0, 1);
    stepping_ = false;
    const StepRunner::Ahead first = ahead_.front();
    ahead_.erase(ahead_.begin());
    token = model_->runner_->take(first);
    if (token < 0) throw undrawable_error(0, tokens_.size());
  } catch (...) {
    stepping_ = false;
    drop_ahead();
    throw;
  }
  commit({&pending_, 1});
  pending_ = -1;
  return token;
}

void Session::drop_ahead() noexcept {
  for (const StepRunner::Ahead& step : ahead_) model_->runner_->drop(step);
  ahead_.clear();
}

std::vector<float> Session::score(std::span<const int32_t> tokens, const Hooks& hooks) {
  const ForkGuarded::Inside inside(model_->forks());
  const uint64_t cancels = cancels_;
  const std::array waiting{BatchItem{this, {}, cancels}};
  const Poll poll = [&] { model_->poll_of(waiting, hooks); };
  const CompiledModel::Turn turn(*model_, poll);
  const FairGuard lock(mutex_, poll);
  quiesce();
  if (tokens.empty()) throw ValueError("expected at least one token, found none");
  std::vector<float> result(tokens.size(), std::numeric_limits<float>::quiet_NaN());
  read_saved();
  // Where there is a history its last row is run again, for its logits: the same token at the same position writes the same bits.
  const uint32_t start = static_cast<uint32_t>(tokens_.size());
  const uint32_t back = start > 0 ? 1 : 0;
  std::vector<int32_t> rows;
  rows.reserve(tokens.size() + 1);
  if (back != 0) rows.push_back(tokens_.back());
  rows.insert(rows.end(), tokens.begin(), tokens.end());
  tokens_.resize(start - back);
  scored_from_ = start;
  const std::array items{BatchItem{this, rows, cancels}};
  try {
    model_->run(
        items, LogitsOf::all,
        [&](size_t, size_t row, std::span<const float> logits) {
          const size_t i = row + 1 - back;  // this row predicts tokens[i]
          if (i < tokens.size()) result[i] = log_probability(logits, tokens[i]);
        },
        hooks);
  } catch (...) {
    if (back != 0) tokens_.push_back(rows.front());
    scored_from_ = 0;
    throw;
  }
  scored_from_ = 0;
  end_generation();
  return result;
}

}  // namespace foundry
