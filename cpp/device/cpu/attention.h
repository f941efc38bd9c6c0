// Splits attention into tiles (queries of some neighbouring rows that share a KV head) and segments, and merges the
// segments in ascending order. Where there are few tiles, the segments of a tile go to several threads, a wave at a
// time, so that scratch does not grow with the context. The split never shows in the result.
#pragma once
#include "base/thread_pool.h"
#include "device/cpu/kernels.h"
#include "device/device.h"

namespace foundry::cpu {

uint64_t attention_scratch_bytes(uint32_t threads);
/// `queries` are those of args, [n_rows * n_heads, head_dim / 32] blocks, where kernels.dots_keys() asks for them.
void attention(const AttentionArgs& args, const QuantRows& queries, const CpuKernels& kernels, ThreadPool& pool,
               std::byte* scratch);

}  // namespace foundry::cpu
