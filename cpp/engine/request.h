// What a call asks of the scheduler: rows of one or several sequences, and what becomes of what they give.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/fair_lock.h"
#include "engine/step.h"
#include "kv/sequence.h"

namespace foundry {

/// Called as a call's rows are run: rows done, rows in all. May throw: the call is abandoned, positions stay.
using Progress = std::function<void(uint64_t done, uint64_t total)>;

/// What a call tells, and what it listens to while it waits and runs, on its caller's thread. What either throws abandons the call.
struct Hooks {
  Progress progress;  // when it begins, and after each step that had rows of it
  Poll interrupt;     // at least every 20 ms, and between the layers of steps that its thread runs
};

/// Receives logits [vocab], or what else the request gives, of one row of one item (those that are replayed not
/// counted), in ascending order. It may run on another caller's thread.
using LogitsSink = std::function<void(size_t item, size_t row, std::span<const float> logits)>;
enum class LogitsOf : uint32_t { last, all };
/// What a row of logits that no token can be drawn from (a NaN, +infinity, nothing but -infinity) does to the call, and a
/// hidden state that is not finite.
enum class Undrawable : uint32_t { refuse, give };  // NumericError, and nothing commits; or the row as it is

/// All of its items or none: once it has run its owner commits the reservations, or lets them undo themselves.
struct Request {
  struct Item {
    Sequence* sequence = nullptr;
    std::span<const int32_t> tokens;
    uint32_t back = 0;              // the first so many of them are the last ones committed, run again
    uint32_t replayed = 0;          // of these, the first ones, whose logits nobody has asked for
    std::function<void()> prepare;  // before pages are reserved; or none
    std::optional<Reservation> reservation{};
  };
  std::vector<Item> items;
  LogitsOf which = LogitsOf::last;
  Gives gives = Gives::logits;
  LogitsSink sink;
  Undrawable undrawable = Undrawable::refuse;
  bool check = false;  // the consistency asserts, before each step

  uint64_t rows() const {
    uint64_t n = 0;
    for (const Item& item : items) n += item.tokens.size();
    return n;
  }

  // The scheduler's, under its lock but for `abandoned`.
  size_t item = 0, offset = 0;          // of the next row
  uint64_t done = 0;                    // rows
  bool in_step = false, ended = false;  // a step that runs has rows of it; all rows have run, or it failed
  std::atomic<bool> abandoned{false};   // its owner waits no longer than the step that runs
  std::exception_ptr error;
};

/// Of the row at this position, of an item of a request.
NumericError undrawable_error(size_t item, uint64_t position, Gives gives = Gives::logits);

}  // namespace foundry
