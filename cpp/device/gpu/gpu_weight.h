// A weight as GPUs have it: the file's bytes, or a copy of them, in a buffer; or the same bytes in the order that suits
// linear_few (metal/include/arranged.h), for linear layers alone, on GPUs with narrow tiles.
#pragma once
#include <memory>

#include "device/device.h"
#include "device/gpu/rope_turns.h"

namespace foundry {

class GpuWeight final : public Weight {
 public:
  std::unique_ptr<Buffer> buffer;
  bool arranged = false;
  mutable RopeTurns turns;  // of ropes whose factors this is
  Span span() const { return {buffer.get(), 0}; }
};

inline const GpuWeight& gpu_weight(const Weight* weight) { return *static_cast<const GpuWeight*>(weight); }
inline Span span_of(const Weight* weight) { return gpu_weight(weight).span(); }

}  // namespace foundry
