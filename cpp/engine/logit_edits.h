// What a caller changes of logits before a token is drawn from them: bias, penalties for what stands there already and for
// what repeats it, a constraint's mask, a cut. In this order, on the host.
#pragma once
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/sampler.h"

namespace foundry {

class LogitEdits {
 public:
  /// `history`: the tokens before the answer.
  LogitEdits(const Sampling& sampling, std::span<const int32_t> history);

  /// Something is to be changed, masks apart.
  bool any() const { return any_; }
  /// The next token of the answer.
  void answered(int32_t token);
  /// `mask` has a bit for each token, lowest first, set where it is allowed; empty: all are. ValueError where none is.
  void apply(std::span<float> logits, std::span<const uint32_t> mask);

 private:
  struct Seen {
    uint32_t in_answer = 0;
  };
  Sampling sampling_;
  bool any_, penalises_;
  std::unordered_map<int32_t, Seen> seen_;  // in the history or the answer
  Dry dry_;
};

/// Words of a mask for so many tokens.
constexpr size_t mask_words(size_t vocab_size) { return (vocab_size + 31) / 32; }

}  // namespace foundry
