// Embeddings: of each text one row, pooled of the hidden states behind the last norm. Texts run in sessions of their
// own, several in a step, and leave nothing behind: no page, no prefix.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "engine/session.h"

namespace foundry {

/// What is made of a text's rows. The first one (`cls`) sees the first token alone, as all here is causal: no other runs.
enum class Pooling : uint32_t { mean, cls, last };

/// Bytes that `embed_texts` takes for as long as it runs, beside K and V and what it writes.
uint64_t embedding_room_bytes(const CompiledModel& model, Pooling pooling);

/// Writes [texts.size(), hidden_size], not normalised. A text's row depends on its tokens alone, and not on the texts
/// beside it or the steps that it runs in, as logits do on the same device. Progress counts rows of all texts.
/// Before anything runs: ValueError for a text without tokens, for ids that there are not, and for a model without a
/// hidden state; ContextOverflowError for a text that is longer than the context. NumericError names the text.
void embed_texts(const std::shared_ptr<CompiledModel>& model, std::span<const std::span<const int32_t>> texts,
                 Pooling pooling, float* out, const Hooks& hooks);

}  // namespace foundry
