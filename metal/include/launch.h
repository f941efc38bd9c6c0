// How each kernel is launched: the threads of a threadgroup, what one threadgroup makes, and which instances there are.
// The kernels and the host that launches them both read it here. A simdgroup has 32 lanes on every GPU that runs these.
#pragma once
#include "params.h"

#ifndef __METAL_VERSION__
namespace foundry {
#endif

/// embed, rope and select_rows: a row to a threadgroup. swiglu, geglu, swiglu_clamped, sigmoid_gate, gelu, add, scale,
/// resize_heads and sum_routed: kThreads values.
struct ElementwiseLaunch {
  enum : u32 { kThreads = 256 };
};

/// A row of K or V to a threadgroup.
struct KvAppendLaunch {
  enum : u32 { kThreads = 128 };
};

/// A head of a row of Q to a threadgroup, or of K and V.
struct RopeAppendLaunch {
  enum : u32 { kThreads = 64 };
};

/// A row to a threadgroup: one simdgroup, or several where it is wide.
struct RmsNormLaunch {
  enum : u32 { kNarrow = 1, kWide = 8, kWideFrom = 1024 };
};

/// A row to a threadgroup.
struct LayerNormLaunch {
  enum : u32 { kSimdgroups = 8, kThreads = kSimdgroups * 32 };
};

/// Few rows: kRows rows and kOutputs a simdgroup (with a gate, one output of two weights). Lanes take kNeighbours of k
/// at a time; the instances "single", for rows that are not whole kNeighbours, one.
struct LinearLaunch {
  enum : u32 { kSimdgroups = 4, kThreads = kSimdgroups * 32, kOutputs = 2, kRows = 4, kNeighbours = 8 };
};

/// A row to a threadgroup, which is a simdgroup.
struct RouteLaunch {
  enum : u32 { kThreads = 32 };
};

/// kOutputs of one expert in a row to a simdgroup. Lanes take kNeighbours of k at a time, or the instances "single" one.
struct LinearRoutedLaunch {
  enum : u32 { kSimdgroups = 4, kThreads = kSimdgroups * 32, kOutputs = 2, kNeighbours = LinearLaunch::kNeighbours };
};

/// Few rows on GPUs whose matrix tiles take halves, up to kMostRows: kRows to a threadgroup, whose simdgroups share k
/// and have kCopies under way. Instances: FOUNDRY_FEW_SHAPES, the outputs and most rows of a threadgroup.
struct LinearFewLaunch {
  enum : u32 { kSimdgroups = 8, kThreads = kSimdgroups * 32, kRows = 8, kMostRows = 16, kNeighbours = 8, kCopies = 4 };
  enum : u32 { kWideFrom = 8192 };  // outputs, for so many rows of x a threadgroup takes twice as many of them
};

/// From kFromRows on, where rows are whole kNeighbours: kSide rows and outputs to a threadgroup.
struct LinearTilesLaunch {
  enum : u32 { kFromRows = 16, kSide = 64, kThreads = 128, kNeighbours = 8 };
};

/// Many rows on GPUs with wide tiles (wide_tile.h): x is split by split_rows, a row to a threadgroup; then kSide rows and
/// outputs to a threadgroup, or kNarrow of both where rows are no more than that.
struct SplitRowsLaunch {
  enum : u32 { kThreads = 256, kMultiple = 64 };  // that a row's halves are padded to
};
struct LinearWideLaunch {
  enum : u32 { kSide = 128, kNarrow = 64, kBand = 16 };
};
/// A threadgroup's memory, in 16 bytes: slots of a step of x, of W in kHalves halves, and of W's scales and minima.
template <u32 kSide, u32 kHalves>
struct LinearWideRoom {
  enum : u32 { kThreads = kSide * 2, kSlots = kHalves == 1 ? 4 : 3 };
  enum : u32 { kX = 2 * kSide * 8, kW = kHalves * kSide * 8, kFactors = kSide };
  enum : u32 { kSlot = kX + kW + kFactors, kBytes = kSlots * kSlot * 16 };
};

/// Few rows. A threadgroup has some query heads of a KV head, in one row, over one of at most kMostSplits parts of the
/// history; a lane has kDims dims of a head. GPUs of few registers have kNarrowQueries query heads at most
/// where kNarrowLanes have a head.
struct AttentionDecodeLaunch {
  enum : u32 { kSimdgroups = 4, kThreads = kSimdgroups * 32, kMostSplits = 32, kDims = 8 };
  enum : u32 { kNarrowLanes = 32, kNarrowQueries = 2 };
};

/// A row of a head to a threadgroup.
struct AttentionMergeLaunch {
  enum : u32 { kThreads = 128 };
};

/// Sequences of kRows rows and more: kRows of a query head to a simdgroup. GPUs of few registers have kNarrowRows where
/// heads have kNarrowFrom dims and more; others kWideRows where they have kWideTo at most and the format has instances of
/// its own.
struct AttentionPrefillLaunch {
  enum : u32 { kSimdgroups = 4, kThreads = kSimdgroups * 32, kRows = 16, kNarrowRows = 8, kNarrowFrom = 128 };
  enum : u32 { kWideRows = 32, kWideTo = 128 };
};

/// kThreads channels to a threadgroup.
struct ShortConvLaunch {
  enum : u32 { kThreads = 256 };
};

/// Columns of a head's state, each of which so many lanes have as the instance says (FOUNDRY_DELTA_SLICES), and a lane
/// kKeys of its keys at most.
struct GatedDeltaLaunch {
  enum : u32 { kSimdgroups = 4, kThreads = kSimdgroups * 32, kKeys = 32, kNormThreads = 32 };
};

/// A row to a threadgroup, the largest that there is: one alone has to ask for all of a row.
struct SampleLaunch {
  enum : u32 { kSimdgroups = 32, kThreads = kSimdgroups * 32 };
};

// Outputs and at most so many rows of a threadgroup of linear_few; formats beside the arranged ones that linear_wide has
// instances for, and halves of a value of them; formats whose weights may be arranged (arranged.h).
#define FOUNDRY_FEW_ROWS(each, ...) each(__VA_ARGS__, 1) each(__VA_ARGS__, 2) each(__VA_ARGS__, 4) each(__VA_ARGS__, 8)
#define FOUNDRY_FEW_SHAPES(each, ...) FOUNDRY_FEW_ROWS(each, __VA_ARGS__, 16) FOUNDRY_FEW_ROWS(each, __VA_ARGS__, 32)
#define FOUNDRY_WIDE(each) each(f16, F16, 1) each(bf16, BF16, 1) each(q5_k, Q5_K, 1)
#define FOUNDRY_ARRANGED(each) each(q8_0, Q8_0) each(q4_0, Q4_0) each(q4_k, Q4_K) each(q6_k, Q6_K)
// Lanes that a column of a delta net's state has, ascending.
#define FOUNDRY_DELTA_SLICES(each) each(4) each(8)
// Formats that attention has instances of its own for, where K and V both are of the format. Others, and mixtures, take
// the instances "any".
#define FOUNDRY_DECODE_FORMATS(each) each(f16, F16) each(q8_0, Q8_0)
#define FOUNDRY_PREFILL_FORMATS(each) each(f16, F16)
// Lanes that have a head between them, ascending, and query heads of a threadgroup, ascending.
#define FOUNDRY_DECODE_LANES(each, ...) each(8, __VA_ARGS__) each(16, __VA_ARGS__) each(32, __VA_ARGS__)
#define FOUNDRY_DECODE_QUERIES(each, ...) each(1, __VA_ARGS__) each(2, __VA_ARGS__) each(4, __VA_ARGS__)
// Head dims that matrix tiles are for, and the positions that are staged at a time.
#define FOUNDRY_PREFILL_DIMS(each, ...)                                                                    \
  each(64, 32, __VA_ARGS__) each(80, 32, __VA_ARGS__) each(96, 32, __VA_ARGS__) each(128, 32, __VA_ARGS__) \
      each(256, 16, __VA_ARGS__)

#ifndef __METAL_VERSION__
}  // namespace foundry
#endif
