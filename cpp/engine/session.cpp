#include "engine/session.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "kv/consistency.h"

namespace foundry {

Session::Session(std::shared_ptr<CompiledModel> model, std::unique_ptr<Sequence> sequence)
    : model_(std::move(model)), sequence_(std::move(sequence)) {}

/// One that a fork of the process has left in the middle of a call is never destroyed (base/forks.h).
std::shared_ptr<Session> Session::shared(Session* session) {
  return {session, [](Session* s) {
            if (!s->model_->forks().abandoned()) delete s;
          }};
}

std::shared_ptr<Session> Session::open(std::shared_ptr<CompiledModel> model, const Capacity& capacity) {
  const ForkGuarded::Inside inside(model->forks());
  auto sequence = std::make_unique<Sequence>(model->memory());
  sequence->promise(std::max(capacity.initial, capacity.reserved));
  sequence->hold(capacity.initial);
  sequence->set_step(capacity.step);  // from here on: the first pages are what was asked for
  return shared(new Session(model, std::move(sequence)));
}

std::shared_ptr<Session> Session::restore(std::shared_ptr<CompiledModel> model, const std::string& path, uint32_t more,
                                          uint32_t step) {
  const ForkGuarded::Inside inside(model->forks());
  auto saved = std::make_shared<const SavedHistory>(path, *model);
  const uint64_t wanted = saved->image.tokens.size() + uint64_t{more};
  std::vector<uint32_t> first_pages;
  for (const KvImage::Group& group : saved->image.groups) first_pages.push_back(group.first_page);
  auto sequence = std::make_unique<Sequence>(model->memory());
  sequence->take(saved->image.tokens, first_pages, saved->image.states.at,
                 static_cast<uint32_t>(std::min<uint64_t>(wanted, model->arch().max_seq_len)));
  sequence->set_step(step);
  auto session = shared(new Session(model, std::move(sequence)));
  session->unread_ = std::move(saved);
  session->has_unread_ = true;
  return session;
}

Session::~Session() { close(); }

void Session::require_idle() const {
  if (in_call_) throw ValueError("called from a progress callback of the session's own step");
}

void Session::require_open() const {
  if (closed_) throw ValueError("the session is closed");
  require_idle();
}

void Session::stop_steps() {
  require_open();
  if (generation_ != nullptr) generation_->drop_ahead();
}

void Session::quiesce() {
  stop_steps();
  sequence_->let_go();
}

void Session::end_generation() {
  if (generation_ != nullptr) {
    generation_->drop_ahead();
    generation_->forget_first();
  }
  generation_ = nullptr;
  const std::lock_guard commits(commit_mutex_);
  pending_ = -1;
}

void Session::read_saved() {
  if (unread_ == nullptr) return;
  unread_->read(sequence_->tables(), sequence_->states(), sequence_->figures().position);
  unread_ = nullptr;
  has_unread_ = false;
}

Sequence::Figures Session::figures() const {
  const ForkGuarded::Inside inside(model_->forks());
  return sequence_->figures();
}

uint64_t Session::shared_bytes() const {
  const ForkGuarded::Inside inside(model_->forks());
  return sequence_->shared_bytes();
}

std::vector<int32_t> Session::tokens() const {
  const ForkGuarded::Inside inside(model_->forks());
  return sequence_->tokens();
}

std::vector<SequenceParams> Session::globals() const {
  const ForkGuarded::Inside inside(model_->forks());
  return sequence_->globals();
}

Sequence::Observed Session::observe() const {
  const ForkGuarded::Inside inside(model_->forks());
  return sequence_->observe();
}

void Session::check() const { check_consistent(observe()); }

std::shared_ptr<Session> Session::fork(const Poll& poll) {
  const ForkGuarded::Inside inside(model_->forks());
  if (calls_.mine()) require_idle();
  if (closed_) throw ValueError("the session is closed");
  if (has_unread_) {  // both would read the same pages
    const FairGuard lock(calls_, poll);
    quiesce();
    read_saved();
  }
  std::unique_ptr<Sequence> sequence;
  int32_t pending = -1;
  {
    const std::lock_guard commits(commit_mutex_);
    sequence = sequence_->fork();
    pending = pending_;
  }
  const auto child = shared(new Session(model_, std::move(sequence)));
  child->pending_ = pending;
  return child;
}

void Session::save(const std::string& path, const Poll& poll) {
  const ForkGuarded::Inside inside(model_->forks());
  const FairGuard lock(calls_, poll);
  quiesce();
  read_saved();
  write_history(path, *model_, sequence_->tokens(), sequence_->tables(), sequence_->states());
}

void Session::reserve(uint32_t n_tokens, const Poll& poll) {
  const ForkGuarded::Inside inside(model_->forks());
  const FairGuard lock(calls_, poll);
  require_open();
  sequence_->promise(n_tokens);
}

void Session::rewind(uint32_t n_tokens, const Poll& poll) {
  const ForkGuarded::Inside inside(model_->forks());
  const FairGuard lock(calls_, poll);
  stop_steps();
  sequence_->rewind(n_tokens);
  sequence_->let_go();
  end_generation();
}

void Session::hold(uint32_t position, const Poll& poll) {
  const ForkGuarded::Inside inside(model_->forks());
  const FairGuard lock(calls_, poll);
  require_open();
  sequence_->hold_from(position);
}

void Session::close(const Poll& poll) {
  const ForkGuarded::Inside inside(model_->forks());
  const FairGuard lock(calls_, poll);
  if (closed_) return;
  require_idle();
  if (generation_ != nullptr) generation_->drop_ahead();
  closed_ = true;
  try {
    if (unread_ == nullptr) sequence_->keep_prefix();
  } catch (const std::bad_alloc&) {  // then it is not kept
  }
  sequence_->clear();
  unread_ = nullptr;
  has_unread_ = false;
  end_generation();
}

Hooks Session::heard(const Hooks& hooks, uint64_t cancels) const {
  Hooks heard;
  heard.interrupt = [this, &hooks, cancels] {
    if (cancels_ != cancels) throw CancelledError("cancelled; the session is where it was before this call");
    if (model_->forks().abandoned()) throw ForkedError("the process was forked in the middle of this call");
    if (hooks.interrupt) hooks.interrupt();
  };
  if (hooks.progress) heard.progress = [&hooks](uint64_t done, uint64_t total) { hooks.progress(done, total); };
  return heard;
}

void Session::validate(std::span<const int32_t> tokens, uint32_t back) const {
  const Arch& arch = model_->arch();
  if (tokens.empty()) throw ValueError("expected at least one token, found none");
  for (size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || static_cast<uint32_t>(tokens[i]) >= arch.vocab_size)
      throw ValueError("token " + std::to_string(i) + ": expected an id from 0 to " +
                       std::to_string(arch.vocab_size - 1) + ", found " + std::to_string(tokens[i]));
  sequence_->require_room(tokens.size() - back);
}

Request::Item Session::item_of(std::span<const int32_t> tokens, std::vector<int32_t>& rows, uint32_t back) {
  const uint32_t replayed = sequence_->replay(position() - back);
  if (replayed != 0) {
    const std::vector<int32_t> history = sequence_->tokens();
    rows.assign(history.end() - back - replayed, history.end() - back);
    rows.insert(rows.end(), tokens.begin(), tokens.end());
    tokens = rows;
  }
  replayed_tokens_ = replayed;
  return {sequence_.get(), tokens, back + replayed, replayed, [this] { read_saved(); }};
}

uint32_t Session::replay(uint32_t position) const {
  const ForkGuarded::Inside inside(model_->forks());
  return sequence_->replay(position);
}

void Session::commit(Request::Item& item) {
  const std::lock_guard commits(commit_mutex_);
  item.reservation->commit(item.tokens.subspan(item.back));
  pending_ = -1;
}

void Session::advance(std::span<const int32_t> tokens, const Hooks& heard, const LogitsSink& sink, LogitsOf which,
                      uint32_t back, bool keeps_cancelled) {
  validate(tokens, back);
  Request request;
  std::vector<int32_t> all;
  request.items.push_back(item_of(tokens, all, back));
  request.which = which, request.sink = sink, request.check = model_->checks_every_step();
  try {
    run(request, {this}, heard);
  } catch (const CancelledError&) {
    if (keeps_cancelled) keep_cancelled(request);
    throw;
  }
}

void Session::keep_cancelled(Request& request) {
  Request::Item& item = request.items.front();
  if (!item.reservation || request.done == 0) return;
  const uint64_t rows = item.reservation->keepable(request.done);
  if (rows == 0) return;
  item.reservation->commit(item.tokens.first(rows));
  try {
    sequence_->keep_prefix();
  } catch (const std::bad_alloc&) {  // then it is not kept
  }
  sequence_->rewind(0);
}

void Session::forward(std::span<const int32_t> tokens, LogitsOf which, const LogitsSink& sink, const Hooks& hooks,
                      Undrawable undrawable) {
  const BatchItem item{this, tokens};
  forward(*model_, {&item, 1}, which, sink, hooks, undrawable);
}

std::vector<float> Session::score(std::span<const int32_t> tokens, const Hooks& hooks) {
  return score(tokens, 0, hooks).logprobs;
}

Session::Scored Session::score(std::span<const int32_t> tokens, uint32_t top, const Hooks& hooks) {
  const ForkGuarded::Inside inside(model_->forks());
  model_->scheduler().refuse_callback();
  const Hooks heard = this->heard(hooks, cancels_);
  const FairGuard lock(calls_, heard.interrupt);
  quiesce();
  if (tokens.empty()) throw ValueError("expected at least one token, found none");
  Scored result{std::vector<float>(tokens.size(), std::numeric_limits<float>::quiet_NaN()), {}};
  result.top.resize(tokens.size());
  // Where there is a history its last row is run again, for its logits: the same token at the same position writes the same bits.
  const std::vector<int32_t> history = sequence_->tokens();
  const uint32_t back = history.empty() ? 0 : 1;
  std::vector<int32_t> rows;
  rows.reserve(tokens.size() + 1);
  if (back != 0) rows.push_back(history.back());
  rows.insert(rows.end(), tokens.begin(), tokens.end());
  const auto sink = [&](size_t, size_t row, std::span<const float> logits) {
    const size_t i = row + 1 - back;  // this row predicts tokens[i]
    if (i >= tokens.size()) return;
    result.logprobs[i] = log_probability(logits, tokens[i]);
    if (top != 0) result.top[i] = most_likely(logits, top);
  };
  advance(rows, heard, sink, LogitsOf::all, back);
  end_generation();
  return result;
}

std::shared_ptr<Generation> Session::generate(std::span<const int32_t> prompt, Generation::Options options,
                                              const Hooks& hooks, uint32_t keep) {
  foundry::check(options.sampling, model_->arch().vocab_size);
  const ForkGuarded::Inside inside(model_->forks());
  model_->scheduler().refuse_callback();
  const uint64_t cancels = cancels_;
  const Hooks heard = this->heard(hooks, cancels);
  const FairGuard lock(calls_, heard.interrupt);
  stop_steps();
  if (keep >= position()) {
    if (keep != UINT32_MAX) end_generation();  // what was drawn and not fed belongs to the end of the history
    sequence_->let_go();
    return begin_generation(prompt, std::move(options), heard, cancels);
  }
  if (keep != 0) read_saved();
  const Sequence::Snapshot before = sequence_->snapshot();
  const int32_t pending = pending_;
  sequence_->rewind(keep);
  sequence_->let_go();
  end_generation();
  try {
    return begin_generation(prompt, std::move(options), heard, cancels);
  } catch (...) {
    if (!model_->forks().abandoned()) sequence_->go_back(before);
    const std::lock_guard commits(commit_mutex_);
    pending_ = pending;
    throw;
  }
}

std::shared_ptr<Generation> Session::begin_generation(std::span<const int32_t> prompt, Generation::Options options,
                                                      const Hooks& heard, uint64_t cancels) {
  std::vector<int32_t> rows;
  rows.reserve(prompt.size() + 1);
  if (pending_ >= 0) rows.push_back(pending_);
  rows.insert(rows.end(), prompt.begin(), prompt.end());
  std::vector<int32_t> history = sequence_->tokens();
  history.insert(history.end(), rows.begin(), rows.end());
  if (options.answered > prompt.size())
    throw ValueError("answered: expected at most the prompt's " + std::to_string(prompt.size()) + " tokens, found " +
                     std::to_string(options.answered));
  const std::shared_ptr<Generation> generation(new Generation(*this, std::move(options), history, cancels));
  if (generation_ != nullptr) generation_->forget_first();
  generation_ = nullptr;
  validate(rows);
  generation->charge_first();
  const bool keeps_cancelled = generation->options_.keeps_cancelled && position() == 0;
  const std::shared_ptr<const SavedHistory> unread = unread_;
  uint32_t cached = 0;
  sequence_->mark_turn();  // the answer before has ended, or what else there is
  if (position() == 0) {
    unread_ = nullptr, has_unread_ = false;  // rewound to nothing before it was read
    cached = sequence_->adopt_prefix(rows);
  }
  cached_tokens_ = 0;
  const uint32_t start = position();
  try {
    advance(
        std::span(rows).subspan(cached), heard,
        [&](size_t, size_t row, std::span<const float> logits) { generation->take_first(logits, start + row); },
        LogitsOf::last, 0, keeps_cancelled);
  } catch (...) {
    if (cached != 0) sequence_->drop_prefix();
    if (unread != nullptr && position() == 0) unread_ = unread, has_unread_ = true;  // its pages may come back
    throw;
  }
  sequence_->mark_turn();
  sequence_->keep_prefix();
  cached_tokens_ = cached;
  generation_ = generation;
  return generation;
}

}  // namespace foundry
