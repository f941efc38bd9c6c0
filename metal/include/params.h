// Launch parameters shared by host and kernels (C++, MSL, CUDA): plain, fixed width, sizes asserted. One struct per op,
// with what a kernel, a device or the consistency asserts read. Every number about capacity is taken from the page
// tables in one place (Sequence::encode), so it equals what is allocated.
#pragma once
#ifdef __METAL_VERSION__
typedef uint u32;
typedef int i32;
typedef ulong u64;
#else
#include <cstdint>
namespace foundry {
using u32 = std::uint32_t;
using i32 = std::int32_t;
using u64 = std::uint64_t;
#endif

/// Where K and V of one layer group lie inside a page: [layer][kv_head][K|V], each part page_tokens x head_dim.
struct KvParams {
  u64 layer_stride_bytes;  // n_kv_heads * head_stride_bytes
  u64 head_stride_bytes;   // k_part_bytes + v_part_bytes
  u64 k_part_bytes;        // V of a (layer, head) begins this far behind its K
  u64 page_bytes;
  u32 page_tokens;
  u32 tile_tokens;  // K: [page_tokens / tile_tokens][head_dim][tile_tokens]; V: [page_tokens][head_dim]
  u32 n_kv_heads;
  u32 head_dim;
  u32 k_type;  // DType
  u32 v_type;
};
/// Tokens of a segment. Attention sums each segment from position 0 on by itself, and merges them in ascending order:
/// the order of summation, part of the design and not a tuning. A page divides it.
enum : u32 { kSegmentTokens = 256 };

/// One sequence of a step. Row r of the step's first_row .. first_row + n_rows is at position start + (r - first_row).
struct SequenceParams {
  u64 pages;        // address of u64 page addresses, one per page, ascending in position
  u32 n_pages;      // pages in the table
  u32 max_seq_len;  // the capacity in tokens: min(n_pages * page_tokens, arch.max_seq_len)
  u32 first_row;
  u32 n_rows;
  u32 start;       // position of the first row == tokens already in the cache
  u32 first_page;  // the first one held: those before have address 0, for the group's window has passed them
};

struct EmbedParams {
  u32 n_rows;
  u32 width;
  float scale;  // what the rows are multiplied by
};

struct RmsNormParams {
  u32 n_rows;
  u32 width;
  float eps;
};

/// LayerNorm (arXiv:1607.06450): (x - mean) / sqrt(variance + eps) * weight (+ bias).
struct LayerNormParams {
  u32 n_rows;
  u32 width;
  float eps;
  u32 has_bias;
};

/// y = x * scale, and then, with a cap above 0, cap * tanh(y / cap). What is not finite comes out NaN where there is a
/// cap.
struct ScaleParams {
  u64 n;
  float scale;
  float cap;
};

/// Heads of `from` values become heads of `to`: the first ones of each, and zeros behind where there are no more.
struct ResizeHeadsParams {
  u64 n;  // values of the result
  u32 from;
  u32 to;
};

struct LinearParams {
  u32 n_rows;
  u32 in_features;
  u32 out_features;
};

/// linear_wide.metal splits x into halves, rows of `padded` of them.
struct SplitRowsParams {
  u32 n_rows;
  u32 width;
  u32 padded;
};

/// What a router's scores become.
enum class RouteGate : u32 { softmax = 0, sigmoid = 1 };
enum : u32 { kMostExperts = 65536, kMostExpertGroups = 64 };

/// See RouteOp (ops.h).
struct RouteParams {
  u32 n_rows;
  u32 n_experts;
  u32 n_used;
  u32 gate;  // RouteGate
  u32 normalise;
  float scale;
  u32 n_groups;
  u32 n_groups_used;
};

struct LinearRoutedParams {
  u32 n_rows;
  u32 n_experts;
  u32 n_used;
  u32 in_parts;  // 1: the experts of a row read one input; n_used: each its own
  u32 in_features;
  u32 out_features;
};

struct SumRoutedParams {
  u32 n_rows;
  u32 n_used;
  u32 width;
};

/// style 0: interleaved pairs (2i, 2i+1), as GGUF stores llama; 1: half-rotated pairs (i, i + rot_dim/2).
struct RopeParams {
  u32 n_rows;
  u32 n_heads;
  u32 head_dim;
  u32 rot_dim;
  u32 style;
  float base;
  float scale;        // of positions
  float magnitude;    // what cosines and sines are multiplied by
  float temperature;  // all of a head is multiplied by 1 + temperature * log(1 + floor(position / temperature_length))
  u32 temperature_length;  // 0: it is not
};

struct AttentionParams {
  u32 n_rows;
  u32 n_heads;
  u32 n_sequences;
  u32 layer;  // layer index inside the group
  float scale;
  u32 window;          // 0: full; else a query sees the last `window` tokens, itself included
  u32 segment_tokens;  // kSegmentTokens
  float cap;           // above 0: scores s, once scaled, become cap * tanh(s / cap); 0: they stay
};

/// How a token is drawn from a row of logits: of the top_k most likely (0: all), then of the fewest that hold top_p of
/// their probability, then of those that are at least min_p times as likely as the first. temperature 0: the most
/// likely.
struct SampleParams {
  float temperature;
  u32 top_k;
  float top_p;
  float min_p;
  float
      uniform;  // 0 .. 1, ends left out: where in the kept ones' probability, counted in the order of ids, the draw falls
};

/// Rows of one sequence through recurrent layers: from the state before the first to the state after the last. Runs
/// are taken in their order, so that one may begin with what the one before it ends with.
struct StateRun {
  u64 from;  // address of a state, which is each layer's, one behind the other; 0: all of it is zero
  u64 to;    // may be `from`
  u32 first_row;
  u32 n_rows;
};

/// A causal convolution of each channel with `taps` values of its own: y[t] = sum over i, ascending, of w[i] x[t -
/// taps + 1 + i] (+ bias). Its state is the last taps - 1 values, the oldest first: f32 [taps - 1, channels].
enum : u32 { kMostTaps = 8 };
struct ShortConvParams {
  u32 n_rows;
  u32 channels;
  u32 taps;   // 2 .. kMostTaps
  u32 gated;  // 1: rows are (b, c, x), and c * conv(b * x) comes out; 0: they are x
  u32 silu;   // 1: y / (1 + e^-y) comes out for y
  u32 unused;
  u64 state_at_bytes;  // where this layer's state begins in a state
};

/// The gated delta rule (arXiv:2412.06464). Rows are q and k of each of k_heads, head_k values, then v of each of v_heads,
/// head_v values. Head h of v reads head h % k_heads of q and k, each divided by its length, and q by sqrt(head_k) too:
///   S = e^(decay_h softplus(alpha_h + bias_h)) S;  S += k (sigmoid(beta_h) (v - S^T k))^T;  o = S^T q
/// and what comes out is rms_norm(o) * silu(z_h). Its state is S of each head: f32 [v_heads, head_k, head_v].
enum : u32 { kMostDeltaDim = 256 };
struct GatedDeltaParams {
  u32 n_rows;
  u32 k_heads;
  u32 v_heads;  // a multiple of k_heads
  u32 head_k;   // 1 .. kMostDeltaDim
  u32 head_v;   // 1 .. kMostDeltaDim
  float eps;
  float qk_eps;  // a length is sqrt(the sum of squares + this)
  u32 unused;
  u64 state_at_bytes;  // where this layer's matrices begin in a state
};

/// out[r, h, i] = in[r, h, i] / (1 + e^-gate[r, h, g]), of heads of `width` values: g is 0 where the gate has `of_head` 1,
/// else the last `width` of as many as it has stand beside in's.
struct SigmoidGateParams {
  u32 n_rows;
  u32 n_heads;
  u32 width;
  u32 of_head;  // values that gate has of each head: 1, width, or 2 * width
};

/// How attention of a few rows is split, on GPUs: each query's positions go to n_splits threadgroups, whole segments
/// each.
struct SplitParams {
  u32 first_row;  // of the step: rows first_row .. first_row + the grid's
  u32 n_splits;
  u32 parts;         // threadgroups that the heads of a KV head take
  u32 prefill_rows;  // sequences of so many rows are another kernel's
};

/// One of K and V of a step's rows, on GPUs.
struct AppendParams {
  u32 layer;
  u32 part;  // 0: K, 1: V
  u32 n_sequences;
};

#ifndef __METAL_VERSION__
static_assert(sizeof(KvParams) == 56 && sizeof(SequenceParams) == 32);
static_assert(sizeof(EmbedParams) == 12 && sizeof(RmsNormParams) == 12 && sizeof(LinearParams) == 12);
static_assert(sizeof(RopeParams) == 40 && sizeof(AttentionParams) == 32 && sizeof(SampleParams) == 20);
static_assert(sizeof(StateRun) == 24 && sizeof(ShortConvParams) == 32);
static_assert(sizeof(GatedDeltaParams) == 40 && sizeof(SigmoidGateParams) == 16);
static_assert(sizeof(SplitParams) == 16 && sizeof(AppendParams) == 12);
static_assert(sizeof(RouteParams) == 32 && sizeof(LinearRoutedParams) == 24 && sizeof(SumRoutedParams) == 12);
static_assert(sizeof(LayerNormParams) == 16 && sizeof(ScaleParams) == 16 && sizeof(ResizeHeadsParams) == 16);
}  // namespace foundry
#endif
