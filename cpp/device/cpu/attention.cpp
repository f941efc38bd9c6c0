#include "device/cpu/attention.h"

#include <algorithm>

namespace foundry::cpu {
namespace {

constexpr uint32_t kWave = 16;            // segments of one tile in flight
constexpr uint32_t kSplitsPerThread = 2;  // fewer tiles than this for each thread: split their segments

/// Rows row .. row + n_rows of a sequence, queries head .. head + n_heads of each; all of one KV head.
struct Tile {
  const SequenceParams* sequence;
  uint32_t row;  // inside the sequence
  uint32_t n_rows;
  uint32_t kv_head;
  uint32_t head;
  uint32_t n_heads;
};

class Tiles {
 public:
  explicit Tiles(const AttentionArgs& args) : args_(args) {
    const uint32_t group = args.p.n_heads / args.kv.n_kv_heads;
    heads_ = std::min(group, kMaxQueries);
    parts_ = (group + heads_ - 1) / heads_;
    group_ = group;
    rows_ = kMaxQueries / heads_;
    for (uint32_t s = 0; s < args.p.n_sequences; ++s)
      count_ += uint64_t{blocks(args.sequences[s])} * args.kv.n_kv_heads * parts_;
  }
  uint64_t count() const { return count_; }
  Tile at(uint64_t index) const {
    const uint64_t per_block = uint64_t{args_.kv.n_kv_heads} * parts_;
    const SequenceParams* sequence = args_.sequences;
    while (index >= blocks(*sequence) * per_block) index -= blocks(*sequence++) * per_block;
    const auto block = static_cast<uint32_t>(index / per_block),
               kv_head = static_cast<uint32_t>(index % per_block / parts_);
    const uint32_t first = static_cast<uint32_t>(index % parts_) * heads_;
    const uint32_t row = block * rows_;
    return {sequence,
            row,
            std::min(rows_, sequence->n_rows - row),
            kv_head,
            kv_head * group_ + first,
            std::min(heads_, group_ - first)};
  }

 private:
  uint32_t blocks(const SequenceParams& sequence) const { return (sequence.n_rows + rows_ - 1) / rows_; }
  const AttentionArgs& args_;
  uint32_t group_ = 0, heads_ = 0, parts_ = 0, rows_ = 0;
  uint64_t count_ = 0;
};

/// Segments that any query of the tile sees: first .. last.
struct Range {
  uint64_t first, last;
};

uint64_t row_begin(const AttentionArgs& args, uint64_t end) {
  return args.p.window != 0 && end > args.p.window ? end - args.p.window : 0;
}

Range segments(const AttentionArgs& args, const Tile& tile) {
  const uint64_t first_end = uint64_t{tile.sequence->start} + tile.row + 1, last_end = first_end + tile.n_rows - 1;
  return {row_begin(args, first_end) / kSegment, (last_end + kSegment - 1) / kSegment};
}

void run_segment(const AttentionArgs& args, const QuantRows& queries, const CpuKernels& kernels, const Tile& tile,
                 uint64_t index, Partial* partials) {
  AttentionSegment s;
  s.kv = args.kv;
  s.layer = args.p.layer;
  s.kv_head = tile.kv_head;
  s.n_queries = tile.n_rows * tile.n_heads;
  s.scale = args.p.scale, s.cap = args.p.cap;
  s.pages = reinterpret_cast<const uint64_t*>(tile.sequence->pages);
  s.first = index * kSegment;
  s.quant = queries;
  for (uint32_t r = 0; r < tile.n_rows; ++r) {
    const uint64_t end = uint64_t{tile.sequence->start} + tile.row + r + 1;
    for (uint32_t h = 0; h < tile.n_heads; ++h) {
      const uint32_t i = r * tile.n_heads + h;
      const uint64_t query = (uint64_t{tile.sequence->first_row} + tile.row + r) * args.p.n_heads + tile.head + h;
      s.q[i] = args.q.as<float>() + query * args.kv.head_dim;
      s.quant_block[i] = query * (args.kv.head_dim / kBlock);
      s.begin[i] = std::max(row_begin(args, end), s.first);
      s.end[i] = std::min(end, s.first + kSegment);
    }
  }
  kernels.attention(s, partials);
}

/// One more score behind all others, with a value of zeros.
void add_sinks(const AttentionArgs& args, const CpuKernels& kernels, const Tile& tile, Partial* totals) {
  const auto* sinks = reinterpret_cast<const float*>(args.sinks->mapped);
  Partial sink;
  sink.sum = 1, sink.seen = 1;
  std::fill_n(sink.out, args.kv.head_dim, 0.0f);
  for (uint32_t i = 0; i < tile.n_rows * tile.n_heads; ++i) {
    sink.max = sinks[tile.head + i % tile.n_heads];
    kernels.merge(totals[i], sink, args.kv.head_dim);
  }
}

void write(const AttentionArgs& args, const CpuKernels& kernels, const Tile& tile, Partial* totals) {
  if (args.sinks != nullptr) add_sinks(args, kernels, tile, totals);
  for (uint32_t r = 0; r < tile.n_rows; ++r)
    for (uint32_t h = 0; h < tile.n_heads; ++h)
      kernels.finish(
          totals[r * tile.n_heads + h],
          args.out.as<float>() +
              ((uint64_t{tile.sequence->first_row} + tile.row + r) * args.p.n_heads + tile.head + h) * args.kv.head_dim,
          args.kv.head_dim);
}

void reset(Partial* totals) {
  for (uint32_t i = 0; i < kMaxQueries; ++i) totals[i].seen = 0;
}

}  // namespace

uint64_t attention_scratch_bytes(uint32_t threads) {
  return uint64_t{threads} * kSplitsPerThread * (kWave + 1) * kMaxQueries * sizeof(Partial);
}

void attention(const AttentionArgs& args, const QuantRows& queries, const CpuKernels& kernels, ThreadPool& pool,
               std::byte* scratch) {
  const Tiles tiles(args);
  const uint32_t head_dim = args.kv.head_dim;
  if (tiles.count() >= uint64_t{pool.size()} * kSplitsPerThread || pool.size() == 1) {
    pool.parallel_for(tiles.count(), [&](uint64_t index, uint32_t) {
      const Tile tile = tiles.at(index);
      const Range range = segments(args, tile);
      Partial totals[kMaxQueries], next[kMaxQueries];
      reset(totals);
      for (uint64_t s = range.first; s < range.last; ++s) {
        run_segment(args, queries, kernels, tile, s, next);
        for (uint32_t i = 0; i < tile.n_rows * tile.n_heads; ++i) kernels.merge(totals[i], next[i], head_dim);
      }
      write(args, kernels, tile, totals);
    });
    return;
  }

  // Few tiles: [tile][wave of segments + the total][query].
  auto* partials = reinterpret_cast<Partial*>(scratch);
  const auto place = [&](uint64_t tile, uint64_t slot) { return partials + (tile * (kWave + 1) + slot) * kMaxQueries; };
  uint64_t most = 0;
  for (uint64_t t = 0; t < tiles.count(); ++t) {
    const Range range = segments(args, tiles.at(t));
    most = std::max(most, range.last - range.first);
    reset(place(t, kWave));
  }
  for (uint64_t wave = 0; wave < most; wave += kWave) {
    const uint64_t n = std::min<uint64_t>(kWave, most - wave);
    pool.parallel_for(tiles.count() * n, [&](uint64_t task, uint32_t) {
      const Tile tile = tiles.at(task / n);
      const Range range = segments(args, tile);
      const uint64_t segment = range.first + wave + task % n;
      if (segment < range.last) run_segment(args, queries, kernels, tile, segment, place(task / n, task % n));
    });
    for (uint64_t t = 0; t < tiles.count(); ++t) {
      const Tile tile = tiles.at(t);
      const Range range = segments(args, tile);
      for (uint64_t s = 0; s < n && range.first + wave + s < range.last; ++s)
        for (uint32_t i = 0; i < tile.n_rows * tile.n_heads; ++i)
          kernels.merge(place(t, kWave)[i], place(t, s)[i], head_dim);
    }
  }
  for (uint64_t t = 0; t < tiles.count(); ++t) write(args, kernels, tiles.at(t), place(t, kWave));
}

}  // namespace foundry::cpu
