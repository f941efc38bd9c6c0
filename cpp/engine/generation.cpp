#include "engine/generation.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/sample.h"
#include "engine/session.h"

namespace foundry {

Generation::Generation(Session& session, Options options, uint64_t cancels)
    : session_(session), options_(std::move(options)), cancels_(cancels), left_(options_.max_new_tokens) {}

Generation::Next Generation::next(const Hooks& hooks) {
  Session& s = session_;
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
    token = s.model().scheduler().alone(heard.interrupt, [&] {
      heard.interrupt();
      while (start_ahead()) {}
      return ahead_.empty() ? -1 : next_ahead();
    });
  }
  if (token < 0) {
    if (s.pending_ >= 0) feed(heard);
    token = draw(heard.interrupt);
  }
  if (std::find(options_.stop_ids.begin(), options_.stop_ids.end(), token) != options_.stop_ids.end()) {
    drop_ahead();
    return {-1, finished_ = Finish::stop};
  }
  --left_;
  const std::lock_guard commits(s.commit_mutex_);
  s.pending_ = token;
  return {token, Finish::none};
}

void Generation::feed(const Hooks& hooks) {
  const std::array token{session_.pending_};
  session_.advance(token, hooks, [this](size_t, size_t, std::span<const float> logits) { take_logits(logits); });
}

int32_t Generation::draw(const Poll& poll) {
  StepRunner& runner = session_.model().runner();
  const uint32_t position = session_.position();
  const SampleParams params = params_at(options_.sampling, position);
  const int32_t token = runner.steps_ahead() == 0
                            ? sample(logits_, params, candidates_)
                            : session_.model().scheduler().alone(poll, [&] { return runner.draw(logits_, params); });
  if (token < 0) throw undrawable_error(0, position - 1);
  return token;
}

bool Generation::runs_ahead() const {
  // Windows take pages of their own again as a call goes on, and a call here is a token.
  const auto& pools = session_.model().memory().pools();
  return session_.model().runner().steps_ahead() != 0 &&
         std::all_of(pools.begin(), pools.end(), [](const auto& pool) { return pool->geometry().window == 0; });
}

bool Generation::start_ahead() {
  Session& s = session_;
  StepRunner& runner = s.model().runner();
  const uint32_t under_way = static_cast<uint32_t>(ahead_.size()), position = s.position() + under_way;
  if (under_way >= runner.steps_ahead() || under_way >= left_ || position >= s.model().arch().max_seq_len) return false;
  try {
    s.read_saved();
    Reservation rows = s.sequence_->reserve(under_way + 1);
    const RowRun run{rows.globals(), {&s.pending_, 1}, position};
    const auto step = runner.start(run, params_at(options_.sampling, position + 1), s.pending_,
                                   ahead_.empty() ? nullptr : &ahead_.back().step);
    if (!step) return false;
    ahead_.push_back({*step, std::move(rows)});
    return true;
  } catch (const Error&) {
    if (ahead_.empty()) throw;
    return false;
  }
}

int32_t Generation::next_ahead() {
  Session& s = session_;
  const StepRunner::Ahead first = ahead_.front().step;
  // Undone, if need be, behind drop_ahead(): steps behind this one may be under way on pages that it would give back.
  Reservation rows = std::move(ahead_.front().rows);
  ahead_.pop_front();
  try {
    const int32_t token = s.model().runner().take(first);
    if (token < 0) throw undrawable_error(0, s.position());
    const std::lock_guard commits(s.commit_mutex_);
    rows.commit({&s.pending_, 1});
    s.pending_ = -1;
    return token;
  } catch (...) {
    drop_ahead();
    throw;
  }
}

void Generation::drop_ahead() noexcept {
  while (!ahead_.empty()) {  // the last first: each gives back what it added
    session_.model().runner().drop(ahead_.back().step);
    ahead_.pop_back();
  }
}

}  // namespace foundry
