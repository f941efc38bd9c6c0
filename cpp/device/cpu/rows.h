// Work by rows, spread over threads where it is worth waking them.
#pragma once
#include <algorithm>
#include <cstdint>

#include "base/thread_pool.h"

namespace foundry::cpu {

/// Elements of an elementwise op below which it isn't worth waking a thread.
constexpr uint64_t kSmall = 16384;

/// function(row) over n rows, each of about so many elements; on the caller alone where it is little work.
template <class F>
void for_rows(ThreadPool& pool, uint64_t n, uint64_t width, F&& function) {
  if (n * width < kSmall) {
    for (uint64_t r = 0; r < n; ++r) function(r);
    return;
  }
  const uint64_t step = std::max<uint64_t>(1, kSmall / 4 / width);
  pool.parallel_for((n + step - 1) / step, [&](uint64_t task, uint32_t) {
    for (uint64_t r = task * step; r < std::min(n, (task + 1) * step); ++r) function(r);
  });
}

}  // namespace foundry::cpu
