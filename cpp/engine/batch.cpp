// Calls that run a request over one session or several: their locks, the run, the commit.
#include <algorithm>
#include <list>

#include "base/error.h"
#include "engine/session.h"

namespace foundry {
namespace {

/// While it lives, these sessions refuse to be changed by their own callbacks.
class InCall {
 public:
  InCall(const std::vector<Session*>& sessions, bool Session::* flag) : sessions_(sessions), flag_(flag) {
    for (Session* session : sessions_) session->*flag_ = true;
  }
  ~InCall() {
    for (Session* session : sessions_) session->*flag_ = false;
  }
  InCall(const InCall&) = delete;

 private:
  const std::vector<Session*>& sessions_;
  bool Session::* flag_;
};

}  // namespace

/// The items of the request are these sessions', in order.
void Session::run(Request& request, const std::vector<Session*>& sessions, const Hooks& heard) {
  CompiledModel& model = *sessions.front()->model_;
  const InCall calls(sessions, &Session::in_call_);
  try {
    model.scheduler().run(request, heard);
  } catch (const ForkedError&) {  // in the child: the locks that giving back would take may be held for ever
    if (model.forks().abandoned()) new std::vector<Request::Item>(std::move(request.items));
    throw;
  }
  for (size_t i = 0; i < sessions.size(); ++i) sessions[i]->commit(request.items[i]);
}

void Session::forward(CompiledModel& model, std::span<const BatchItem> items, LogitsOf which, const LogitsSink& sink,
                      const Hooks& hooks, Undrawable undrawable, Gives gives) {
  const ForkGuarded::Inside inside(model.forks());
  model.scheduler().refuse_callback();
  if (items.empty()) return;
  std::vector<Session*> sessions, in_order;
  std::vector<Hooks> own;  // each hears its own session's cancels
  for (const BatchItem& item : items) {
    if (item.session->model_.get() != &model) throw ValueError("a batch holds a session of another model");
    sessions.push_back(item.session);
    own.push_back(item.session->heard(hooks, item.session->cancels_));
  }
  Hooks heard = own.front();
  heard.interrupt = [&own] {
    for (const Hooks& one : own) one.interrupt();
  };
  in_order = sessions;
  std::sort(in_order.begin(), in_order.end(),  // as base/lock_order.h asks
            [](const Session* a, const Session* b) { return a->calls_.number() < b->calls_.number(); });
  if (std::adjacent_find(in_order.begin(), in_order.end()) != in_order.end())
    throw ValueError("a batch holds a session twice; expected each once");
  std::list<FairGuard> locks;
  for (Session* session : in_order) {
    locks.emplace_back(session->calls_, heard.interrupt);
    session->quiesce();
  }
  Request request;
  std::list<std::vector<int32_t>> rows;
  for (const BatchItem& item : items) {
    item.session->validate(item.tokens);
    request.items.push_back(item.session->item_of(item.tokens, rows.emplace_back()));
  }
  request.which = which, request.gives = gives, request.sink = sink, request.undrawable = undrawable;
  request.check = model.checks_every_step();
  run(request, sessions, heard);
  for (Session* session : sessions) session->end_generation();
}

}  // namespace foundry
