// A generation under way: draws tokens one after the other, each at the position that it will take, so that the same seed and history
// give the same token whatever came between. It lives as long as its caller wants tokens; another call of its session ends it.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/ahead.h"
#include "engine/logit_edits.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/step.h"

namespace foundry {

class Session;

enum class Finish : uint32_t { none, stop, length, context };

class Generation final : public AheadMember {
 public:
  struct Options {
    uint32_t max_new_tokens = 0;
    Sampling sampling{};
    std::vector<int32_t> stop_ids{};
    // So many of the most likely, beside the token's own; of the logits as the model gives them.
    std::optional<uint32_t> top_logprobs{};
    bool constrained = false;  // next() may be given masks
    // So many of the prompt's last tokens are the answer's first ones: it goes on where its pages had to be given back.
    uint32_t answered = 0;
    // Of a prompt that is cancelled on an empty session, the prefix tree keeps what has been computed.
    bool keeps_cancelled = false;
  };
  struct Next {
    int32_t token = -1;
    Finish finish = Finish::none;
    float logprob = 0;  // where top_logprobs were asked for
    std::vector<std::pair<int32_t, float>> top_logprobs{};
  };

  Generation(const Generation&) = delete;
  ~Generation() override { forget_first(); }

  /// The next token, or why there is none. The last token given is not in the history until the session's next generation feeds it,
  /// before its prompt; rewind, forward and score drop it. ValueError once another call of the session has ended this generation.
  /// `mask`, of mask_words(vocab_size) words, has a bit for each token that may come; empty: all may.
  Next next(const Hooks& hooks, std::span<const uint32_t> mask = {});

 private:
  friend class Session;
  Generation(Session& session, Options options, std::span<const int32_t> history, uint64_t cancels);
  /// The token behind the row at `position`, drawn where the row was computed: nothing of it is kept. By who leads.
  void draw(std::span<const float> logits, uint64_t position, std::span<const uint32_t> mask);
  /// The prompt's last row: drawn, or kept until the first mask comes. Where it will be kept it is charged before the prompt runs.
  void charge_first();
  void take_first(std::span<const float> logits, uint64_t position);
  void draw_first(const Poll& poll, std::span<const uint32_t> mask);
  void forget_first() noexcept;
  /// Feeds the token that is pending, on its own or in a step with others' rows.
  void feed(const Hooks& hooks, std::span<const uint32_t> mask);

  // On a device that runs beside the host: steps are under way before the token that the last of them needs is known here.
  bool runs_ahead() const;
  std::optional<Want> want() override;
  FairLock& calls() override;
  int32_t next_ahead();        // the token of the first, whose own is history then
  void drop_ahead() noexcept;  // all of them: their tokens were never told

  Session& session_;  // which owns it, until another call ends it
  Options options_;
  LogitEdits edits_;
  uint64_t cancels_;  // of the session when the generation began
  uint32_t left_;
  Finish finished_ = Finish::none;
  Next drawn_;                // and not yet given
  std::vector<float> first_;  // of a constrained generation, until its first token
  uint64_t first_bytes_ = 0;  // charged for it
};

}  // namespace foundry
