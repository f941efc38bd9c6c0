// What the CPU device asks of an instruction set: one table of functions, built from one source (kernels.inl) for each.
// Plain C types only: the files behind it are compiled with flags that must not leak into shared inline functions.
//
// Order of summation (a promise, see docs/decisions.md): lanes are outputs; k ascends; a row's arithmetic is the same
// however many rows share its tile.
#pragma once
#include <cstddef>
#include <cstdint>

#include "params.h"

namespace foundry::cpu {

constexpr uint32_t kLanes = 16;  // outputs of a panel
constexpr uint32_t kBlock = 32;  // k of a block of quantised activations
constexpr uint32_t kQuantBytes = 2 * kBlock;
constexpr float kQuantMax = 127 * 128;
constexpr uint32_t kMaxQueries = 16;  // of an attention tile
constexpr uint32_t kMaxHeadDim = 256;
constexpr uint32_t kSegment = kSegmentTokens;

/// Rows of activations in blocks of 32 along k: x ~ scale * q, scale = max|x| / 16256, q = 128 * coarse + fine, coarse
/// within 127 and fine from -64 to 63. Byte dot products of the two, joined, are exact in int32; one byte alone (as
/// other engines have it) moves SmolLM2's log-probabilities by 0.06 on average.
struct QuantRows {
  int8_t* q;      // [n_rows, k / 32][coarse|fine][32]
  float* scales;  // [n_rows, k / 32]
  int32_t* sums;  // [n_rows, k / 32, 2]: of the first 16 q of a block and of the last
};

/// Rows of a weight as the file has them, that make a panel of kLanes outputs.
struct PanelSource {
  uint32_t type;    // DType
  uint32_t n_rows;  // 1 .. kLanes
  uint64_t cols;
  const std::byte* rows;
};

/// Sixteen outputs of a linear layer over all rows.
struct LinearPanel {
  uint32_t type;  // DType of the weight
  uint32_t n_rows;
  uint32_t in_features;
  uint32_t n_outputs;  // 1 .. 16
  const std::byte* panel;
  const float* x;         // [n_rows, in_features], for plain types
  QuantRows quant;        // for quantised types
  const float* bias;      // [n_outputs] or null
  const float* residual;  // row stride out_stride, or null
  float* out;
  uint64_t out_stride;
};

/// Up to 16 queries that share a KV head, over one segment.
struct AttentionSegment {
  KvParams kv;
  uint32_t layer;
  uint32_t kv_head;
  uint32_t n_queries;
  float scale;
  float cap;  // 0: none
  const uint64_t* pages;
  uint64_t first;                     // the segment's first position, a multiple of kSegment
  const float* q[kMaxQueries];        // [head_dim] each
  QuantRows quant;                    // the same queries, where K is of a type that dots_keys() names
  uint64_t quant_block[kMaxQueries];  // where each begins in it
  uint64_t
      begin[kMaxQueries];  // positions that each query sees: begin .. end, inside the segment; none if begin >= end
  uint64_t end[kMaxQueries];
};

/// The softmax over a segment, before division: out = sum exp(s - max) v.
struct Partial {
  float max;
  float sum;
  uint32_t seen;  // 0: no position
  uint32_t unused;
  float out[kMaxHeadDim];
};

/// Rows of one head through the gated delta rule (params.h: GatedDeltaParams).
constexpr uint32_t kDeltaRows = 8;  // that go through a block of the state while it is near
struct DeltaRows {
  uint32_t n_rows;  // 1 .. kDeltaRows
  uint32_t head_k;
  uint32_t head_v;
  const float* from;  // the state [head_k, head_v]; null: zero
  float* to;          // may be `from`
  const float* next;  // what is likely read next, as large; null: not known
  const float *q, *k, *v;
  uint64_t mixed_stride;   // of a row of them
  float kept[kDeltaRows];  // what the state is multiplied by
  float beta[kDeltaRows];
  const float* norm;  // [head_v]
  float eps;
  float qk_eps;
  const float* z;
  float* out;
  uint64_t out_stride;  // of a row of z and out
};

struct CpuKernels {
  const char* isa;
  uint64_t (*panel_bytes)(uint32_t type, uint64_t cols);
  void (*pack)(const PanelSource& from, std::byte* to);  // panel_bytes
  void (*quantise)(const float* x, uint32_t n, int8_t* q, float* scales, int32_t* sums);
  void (*linear)(const LinearPanel& panel);
  bool (*dots_keys)(uint32_t type);  // whether K of the type is scored by byte dot products, with queries in two bytes
  void (*attention)(const AttentionSegment& segment, Partial* partials);  // one partial a query
  void (*merge)(Partial& into, const Partial& next, uint32_t head_dim);
  void (*finish)(const Partial& partial, float* out, uint32_t head_dim);
  void (*append)(const float* x, uint32_t n, uint32_t type, std::byte* to,
                 uint64_t stride_elements);  // converts n values
  void (*rms_norm)(const float* x, const float* weight, float* y, uint32_t n, float eps);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* y, uint32_t n, float eps);
  void (*swiglu)(const float* gate, const float* up, float* y, uint64_t n);
  void (*geglu)(const float* gate, const float* up, float* y, uint64_t n);
  void (*sigmoid_gate)(const float* x, const float* gate, float* y, uint64_t n);
  void (*gated_delta)(const DeltaRows& rows);
  void (*gelu)(const float* x, float* y, uint64_t n);
  void (*scale)(const float* x, float* y, uint64_t n, float scale, float cap);
  void (*add)(const float* a, const float* b, float* y, uint64_t n);
};

// Those that this build has; the device takes what the processor can run.
const CpuKernels& kernels_amx();
const CpuKernels& kernels_avx512();
const CpuKernels& kernels_avx2();
const CpuKernels& kernels_baseline();  // x86-64-v2, or Arm with dot product

}  // namespace foundry::cpu
