#include "engine/generation.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/error.h"
#include "base/sample.h"
#include "engine/session.h"

namespace foundry {

Generation::Generation(Session& session, Options options, std::span<const int32_t> history, uint64_t cancels)
    : session_(session),
      options_(std::move(options)),
      edits_(options_.sampling, history.first(history.size() - options_.answered)),
      cancels_(cancels),
      left_(options_.max_new_tokens) {
  for (const int32_t token : history.last(options_.answered)) edits_.answered(token);
}

Generation::Next Generation::next(const Hooks& hooks, std::span<const uint32_t> mask) {
  Session& s = session_;
  if (!mask.empty() && !options_.constrained) throw ValueError("mask: this generation was begun without a constraint");
  if (const size_t words = mask_words(s.model().arch().vocab_size); !mask.empty() && mask.size() != words)
    throw ValueError("mask: expected " + std::to_string(words) + " words, found " + std::to_string(mask.size()));
  const ForkGuarded::Inside inside(s.model().forks());
  const Hooks heard = s.heard(hooks, cancels_);
  const FairGuard lock(s.calls_, heard.interrupt);
  s.require_open();
  if (s.generation_.get() != this)
    throw ValueError("this generation has ended: another call has gone on with its session");
  if (finished_ != Finish::none) return {-1, finished_};
  if (left_ == 0) return {-1, finished_ = Finish::length};
  if (s.pending_ >= 0 && s.position() >= s.model().arch().max_seq_len) return {-1, finished_ = Finish::context};
  int32_t token = -1;
  if (s.pending_ >= 0 && runs_ahead()) {
    s.read_saved();
    const Session::Stepping stepping(s);
    token = s.model().scheduler().ahead(*this, heard.interrupt, [&] {
      heard.interrupt();
      return under_way_.empty() ? -1 : next_ahead();
    });
  }
  if (token < 0) {
    if (s.pending_ >= 0)
      feed(heard, mask);
    else if (drawn_.token < 0)
      draw_first(heard.interrupt, mask);
    token = drawn_.token;
  }
  if (std::find(options_.stop_ids.begin(), options_.stop_ids.end(), token) != options_.stop_ids.end()) {
    drop_ahead();
    return {-1, finished_ = Finish::stop};
  }
  edits_.answered(token);  // it may find no memory: then the token is kept, and given when asked again
  --left_;
  Next found = std::exchange(drawn_, Next{});
  const std::lock_guard commits(s.commit_mutex_);
  s.pending_ = token;
  found.token = token;
  return found;
}

void Generation::feed(const Hooks& hooks, std::span<const uint32_t> mask) {
  const std::array token{session_.pending_};
  const uint32_t position = session_.position();
  session_.advance(token, hooks, [&](size_t, size_t, std::span<const float> logits) { draw(logits, position, mask); });
}

void Generation::draw(std::span<const float> logits, uint64_t position, std::span<const uint32_t> mask) {
  StepRunner& runner = session_.model().runner();
  std::span<const float> edited = logits;
  if (edits_.any() || !mask.empty()) {
    if (!drawable(logits)) throw undrawable_error(0, position);
    const std::span<float> copy = runner.editable(logits);
    edits_.apply(copy, mask);
    edited = copy;
  }
  Next found;
  if (options_.top_logprobs) found.top_logprobs = most_likely(logits, *options_.top_logprobs);
  const bool device_draws = runner.steps_ahead() != 0;
  std::vector<float> all;  // a device draws in place of the first row
  if (options_.top_logprobs && device_draws && edited.data() != logits.data()) all.assign(logits.begin(), logits.end());
  found.token = runner.draw(edited, params_at(options_.sampling, position + 1));
  if (found.token < 0) throw undrawable_error(0, position);
  if (options_.top_logprobs) found.logprob = log_probability(all.empty() ? logits : all, found.token);
  drawn_ = std::move(found);
}

void Generation::charge_first() {
  if (!options_.constrained) return;
  const uint64_t vocab = session_.model().arch().vocab_size;
  session_.model().memory().admission().charge(MemoryUse::logits, vocab * sizeof(float));
  first_bytes_ = vocab * sizeof(float);
  first_.reserve(vocab);
}

void Generation::take_first(std::span<const float> logits, uint64_t position) {
  if (options_.constrained)
    first_.assign(logits.begin(), logits.end());
  else if (left_ != 0)
    draw(logits, position, {});
}

void Generation::draw_first(const Poll& poll, std::span<const uint32_t> mask) {
  session_.model().scheduler().alone(poll, [&] { draw(first_, session_.position() - 1, mask); });
  forget_first();
}

void Generation::forget_first() noexcept {
  if (first_bytes_ == 0 || session_.model().forks().abandoned()) return;
  first_ = {};
  session_.model().memory().admission().credit(MemoryUse::logits, std::exchange(first_bytes_, 0));
}

bool Generation::runs_ahead() const {
  if (edits_.any() || options_.constrained || options_.top_logprobs) return false;  // the host looks at each row
  // Windows take pages of their own again as a call goes on, and a call here is a token.
  const auto& pools = session_.model().memory().pools();
  // So do recurrent layers, of their states.
  return session_.model().runner().steps_ahead() != 0 && std::all_of(pools.begin(), pools.end(), [](const auto& pool) {
           return pool->geometry().window == 0 && !pool->geometry().recurrent();
         });
}

FairLock& Generation::calls() { return session_.calls_; }

std::optional<AheadMember::Want> Generation::want() {
  Session& s = session_;
  const auto under_way = static_cast<uint32_t>(under_way_.size()), position = s.position() + under_way;
  if (s.closed_ || s.generation_.get() != this || s.pending_ < 0 || s.unread_ != nullptr || s.cancels_ != cancels_)
    return {};
  if (finished_ != Finish::none || under_way >= s.model().runner().steps_ahead() || under_way >= left_ ||
      position >= s.model().arch().max_seq_len)
    return {};
  return Want{s.sequence_->reserve(under_way + 1), params_at(options_.sampling, position + 1), position, s.pending_};
}

int32_t Generation::next_ahead() {
  Session& s = session_;
  // Undone, if need be, behind drop_ahead(): steps behind this one may be under way on pages that it would give back.
  std::list<AheadRow> first;
  first.splice(first.end(), under_way_, under_way_.begin());
  AheadRow& row = first.front();
  try {
    const int32_t token = row.step->token(row.row);
    if (token < 0) throw undrawable_error(0, s.position());
    const std::lock_guard commits(s.commit_mutex_);
    row.reservation.commit({&s.pending_, 1});
    s.pending_ = -1;
    return token;
  } catch (...) {
    drop_ahead();
    row.step->wait_out();
    throw;
  }
}

void Generation::drop_ahead() noexcept {
  session_.model().scheduler().leave(*this);
  while (!under_way_.empty()) {  // the last first: each gives back what it added
    under_way_.back().step->wait_out();
    under_way_.pop_back();
  }
}

}  // namespace foundry
