#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/sample.h"
#include "kv/consistency.h"

namespace foundry {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kPoll{20};
constexpr milliseconds kDecodes{1000};  // since its last row somebody counts as decoding
constexpr milliseconds kLinger{2};      // for rows of those who decoded in the last step, at most

/// Thrown out of a step that nobody waits for any more.
struct Abandoned {};

thread_local const Scheduler* calling_out = nullptr;

/// While it lives this thread is in a hook.
struct CallingOut {
  explicit CallingOut(const Scheduler* of) : outer(std::exchange(calling_out, of)) {}
  ~CallingOut() { calling_out = outer; }
  CallingOut(const CallingOut&) = delete;
  const Scheduler* outer;
};

bool usable(std::span<const float> row, Gives gives) {
  if (gives == Gives::logits) return drawable(row);
  return std::all_of(row.begin(), row.end(), [](float value) { return std::isfinite(value); });
}

}  // namespace

NumericError undrawable_error(size_t item, uint64_t position, Gives gives) {
  const std::string at = " at position " + std::to_string(position);
  if (gives == Gives::hidden) return NumericError("the hidden state" + at + " is not finite", item, position);
  return NumericError("the logits" + at +
                          " hold a NaN or +infinity, or nothing but -infinity: no token can be drawn from them; "
                          "the session is where it was before this call",
                      item, position);
}

void Scheduler::refuse_callback() const {
  if (calling_out == this) throw ValueError("called from a progress callback of this model, while its step runs");
}

Scheduler::Counts Scheduler::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void Scheduler::wait(RankedLock& lock) {
  // The system's clock: the thread sanitizer knows its wait.
  changed_.wait_until(lock.native(), std::chrono::system_clock::now() + kPoll);
}

void Scheduler::leave_line(Line& ticket) {
  if (!ticket.empty()) return;
  const auto place = std::find(line_.begin(), line_.end(), &ticket);
  const bool first = place == line_.begin();
  ticket.splice(ticket.end(), line_, place);
  if (first && !leading_) changed_.notify_all();  // the next one may lead
}

std::exception_ptr Scheduler::call_out(RankedLock& lock, Line& ticket, const std::function<void()>& hook) {
  leave_line(ticket);
  lock.unlock();
  std::exception_ptr thrown;
  {
    const CallingOut out(this);
    try {
      hook();
    } catch (...) {
      thrown = std::current_exception();
    }
  }
  lock.lock();
  return thrown;
}

Scheduler::Lead::Lead(Scheduler& scheduler, const Poll& poll) : of(scheduler) {
  of.refuse_callback();
  Line ticket;
  ticket.push_back(&ticket);
  RankedLock lock(of.mutex_);
  of.stand_in_line(ticket);
  Clock::time_point polled = Clock::now();
  while (!of.may_lead(&ticket)) {
    of.wait(lock);
    if (of.may_lead(&ticket) || !poll || Clock::now() - polled < kPoll) continue;
    polled = Clock::now();
    if (const std::exception_ptr thrown = of.call_out(lock, ticket, poll)) std::rethrow_exception(thrown);
    of.stand_in_line(ticket);
  }
  of.line_.pop_front();
  of.leading_ = true;
}

Scheduler::Lead::~Lead() {
  const std::lock_guard lock(of.mutex_);
  of.leading_ = false;
  of.changed_.notify_all();
}

void Scheduler::run(Request& request, const Hooks& hooks) {
  refuse_callback();
  const uint64_t total = request.rows();
  uint64_t done = 0, told = UINT64_MAX;  // read under the lock, told without it
  Clock::time_point polled{};
  std::exception_ptr early;  // what the hooks threw
  std::list<Request*> turn{&request};
  Line ticket;
  ticket.push_back(&ticket);
  const std::function<void()> hook = [&] {
    if (hooks.interrupt) hooks.interrupt();
    if (done != std::exchange(told, done) && hooks.progress) hooks.progress(done, total);
  };
  RankedLock lock(mutex_);
  queue_.splice(queue_.end(), turn);
  changed_.notify_all();  // who lingers for it
  while (true) {
    done = request.done;
    // Who may lead does: a step listens too. Others listen now and then, for each time costs them their place in the line.
    const bool due = done != told || (!may_lead(&ticket) && Clock::now() - polled >= kPoll);
    if (due && early == nullptr && request.error == nullptr) {
      polled = Clock::now();
      early = call_out(lock, ticket, hook);
    }
    if (early != nullptr) request.abandoned = true;
    if (early != nullptr && (!request.in_step || forks_.abandoned())) break;
    if (request.ended) {  // others may have ended it while its hook ran: then the end is yet to be told
      if (request.error != nullptr || early != nullptr || told == request.done) break;
      continue;
    }
    if (early == nullptr && !ticket.empty()) stand_in_line(ticket);
    if (early == nullptr && may_lead(&ticket)) {
      ticket.splice(ticket.end(), line_, line_.begin());
      leading_ = true;
      lock.unlock();
      try {
        early = step(&request, hooks.interrupt);
      } catch (...) {  // want of memory, before the step had begun
        early = std::current_exception();
      }
      lock.lock();
      leading_ = false;
      changed_.notify_all();
    } else {
      wait(lock);
    }
  }
  if (forks_.abandoned())
    lock.release();  // in a forked child: nothing here is used again
  else {
    turn.splice(turn.end(), queue_, std::find(queue_.begin(), queue_.end(), &request));
    leave_line(ticket);
    lock.unlock();
  }
  if (early != nullptr) std::rethrow_exception(early);
  if (request.error != nullptr) std::rethrow_exception(request.error);
}

bool Scheduler::shared(Clock::time_point now) const {
  const auto prompts = [&](const Sequence* who) {
    for (const Request* r : queue_)
      for (const Request::Item& item : r->items)
        if (item.sequence == who && !r->ended && r->rows() != 1) return true;
    return false;
  };
  for (const Decoder& one : decoders_)
    if (one.who != nullptr && now - one.when < kDecodes && !prompts(one.who)) return true;
  for (const Request* r : queue_)
    if (!r->ended && r->rows() == 1) return true;
  return false;
}

/// Who is in the next step, with how many rows. Those who decoded in the last one are waited for a moment: their owners are at the token
/// that they have just got. Without it one who decodes beside a prompt would come too late for each second step, and wait for two.
std::vector<Scheduler::Part> Scheduler::compose() {
  RankedLock lock(mutex_);
  const auto waits = [](const Request* r) { return !r->ended && !r->abandoned; };
  const auto decodes = [&] {
    return static_cast<uint32_t>(std::count_if(queue_.begin(), queue_.end(),
                                               [&](const Request* r) { return waits(r) && r->rows() - r->done == 1; }));
  };
  const auto until = std::chrono::system_clock::now() + std::min<Clock::duration>(kLinger, last_took_ / 4);
  while (decodes() < last_decodes_ && Clock::now() - last_end_ < kLinger)
    if (changed_.wait_until(lock.native(), until) == std::cv_status::timeout) break;
  std::vector<uint64_t> left;
  std::vector<Part> parts;
  parts.reserve(queue_.size()), left.reserve(queue_.size());
  for (Request* r : queue_)
    if (waits(r)) parts.push_back({r, 0}), left.push_back(r->rows() - r->done);
  const std::vector<uint32_t> rows = plan_step(left, runner_.max_rows(), chunk_.rows(shared(Clock::now())));
  for (size_t i = 0; i < parts.size(); ++i) {  // nothing below allocates
    parts[i].rows = rows[i];
    if (rows[i] == 0) continue;
    parts[i].request->in_step = true;  // and to the end of the queue: turns are fair
    queue_.splice(queue_.end(), queue_, std::find(queue_.begin(), queue_.end(), parts[i].request));
  }
  std::erase_if(parts, [](const Part& part) { return part.rows == 0; });
  return parts;
}

void Scheduler::begin(Request& request) {
  if (request.items.front().reservation) return;
  try {
    for (Request::Item& item : request.items) {
      if (item.prepare) item.prepare();
      item.reservation.emplace(item.sequence->reserve(item.tokens.size(), item.back));
    }
  } catch (...) {
    for (Request::Item& item : request.items) item.reservation.reset();
    throw;
  }
}

std::exception_ptr Scheduler::step(Request* own, const Poll& interrupt) {
  const Clock::time_point began = Clock::now();
  std::vector<Part> parts;
  std::exception_ptr thrown;
  const Poll poll = [&] {
    if (interrupt && thrown == nullptr) {
      const CallingOut out(this);
      try {
        interrupt();
      } catch (...) {
        thrown = std::current_exception();
        own->abandoned = true;
      }
    }
    if (std::all_of(parts.begin(), parts.end(),
                    [](const Part& part) { return part.error != nullptr || part.request->abandoned; }))
      throw Abandoned{};
  };
  try {
    parts = compose();
  } catch (...) {
    return std::current_exception();
  }
  for (Part& part : parts) {
    try {
      begin(*part.request);
    } catch (...) {  // its own fault or shortage: the others go on
      part.error = std::current_exception();
    }
  }
  try {
    run_parts(parts, poll);
  } catch (const Abandoned&) {
    runner_.abandon();
    for (Part& part : parts) part.rows = 0;  // none of them has run
  } catch (...) {
    runner_.abandon();
    for (Part& part : parts)
      if (part.error == nullptr) part.error = std::current_exception();
  }
  finish_parts(parts, std::chrono::duration<double>(Clock::now() - began).count());
  return thrown;
}

/// The rows of all parts, laid end to end.
void Scheduler::run_parts(std::vector<Part>& parts, const Poll& poll) {
  std::vector<RowRun> runs;
  std::vector<Origin> origins;
  std::vector<int32_t> selected[2];  // by what they give
  for (size_t p = 0; p < parts.size(); ++p) {
    Request& r = *parts[p].request;
    if (parts[p].error != nullptr) continue;
    size_t item = r.item, offset = r.offset;
    for (uint32_t left = parts[p].rows; left != 0;) {
      Request::Item& of = r.items[item];
      const size_t n = std::min<size_t>(left, of.tokens.size() - offset);
      const uint64_t start = of.reservation->start() + offset;
      of.reservation->roll_to(start, start + n);
      if (r.check || (r.done == 0 && of.reservation->grew())) check_consistent(of.sequence->observe());
      runs.push_back({of.reservation->globals(), of.tokens.subspan(offset, n), static_cast<uint32_t>(start),
                      of.reservation->state_runs(start, start + n)});
      for (size_t i = 0; i < n; ++i) {
        if ((r.which == LogitsOf::all && offset + i >= of.replayed) || offset + i + 1 == of.tokens.size())
          selected[static_cast<size_t>(r.gives)].push_back(static_cast<int32_t>(origins.size()));
        origins.push_back({p, item, offset + i});
      }
      left -= static_cast<uint32_t>(n);
      offset += n;
      if (offset == of.tokens.size()) ++item, offset = 0;
    }
  }
  if (runs.empty()) return;
  runner_.run_body(runs, poll);
  for (const Gives gives : {Gives::logits, Gives::hidden})
    tell_rows(parts, selected[static_cast<size_t>(gives)], origins, gives, poll);
  runner_.finish();
}

/// What these rows give, to the sinks of those whose they are.
void Scheduler::tell_rows(std::vector<Part>& parts, std::span<const int32_t> rows, std::span<const Origin> origins,
                          Gives gives, const Poll& poll) {
  const uint32_t width = runner_.width(gives);
  for (size_t at = 0; at < rows.size(); at += runner_.max_selected()) {
    const size_t n = std::min<size_t>(runner_.max_selected(), rows.size() - at);
    if (at != 0) poll();
    const float* results = runner_.run_head(rows.subspan(at, n), gives);
    for (size_t i = 0; i < n; ++i) {
      const Origin& origin = origins[static_cast<size_t>(rows[at + i])];
      Part& part = parts[origin.part];
      if (part.error != nullptr) continue;
      const std::span values(results + i * width, width);
      try {
        const Request::Item& item = part.request->items[origin.item];
        if (part.request->undrawable == Undrawable::refuse && !usable(values, gives))
          throw undrawable_error(origin.item, item.reservation->start() + origin.row, gives);
        part.request->sink(origin.item, origin.row - item.replayed, values);
      } catch (...) {
        part.error = std::current_exception();
      }
    }
  }
}

void Scheduler::remember(const Sequence* decoder) {
  auto* place = decoders_.data();
  for (Decoder& one : decoders_) {
    if (one.who == decoder) {
      place = &one;
      break;
    }
    if (one.when < place->when) place = &one;
  }
  *place = {decoder, Clock::now()};
}

void Scheduler::finish_parts(const std::vector<Part>& parts, double seconds) {
  const std::lock_guard lock(mutex_);
  uint32_t rows = 0, decodes = 0;
  for (const Part& part : parts) {
    Request& r = *part.request;
    r.in_step = false;
    if (part.error != nullptr) {
      r.error = part.error;
      r.ended = true;
      continue;
    }
    rows += part.rows;
    if (r.rows() == 1) {
      ++decodes;
      remember(r.items.front().sequence);
    }
    r.done += part.rows;
    for (uint32_t left = part.rows; left != 0;) {
      const size_t n = std::min<size_t>(left, r.items[r.item].tokens.size() - r.offset);
      left -= static_cast<uint32_t>(n);
      r.offset += n;
      if (r.offset == r.items[r.item].tokens.size()) ++r.item, r.offset = 0;
    }
    r.ended = r.done == r.rows();
  }
  last_end_ = Clock::now();
  last_took_ = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  last_decodes_ = decodes;
  if (rows > decodes) chunk_.learn(rows, seconds);
  if (rows != 0) ++counts_.steps;
  counts_.rows += rows;
  counts_.decode_steps += decodes != 0 ? 1 : 0;
  counts_.decode_rows += decodes;
}

}  // namespace foundry
