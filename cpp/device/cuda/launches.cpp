#include "device/cuda/launches.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/hash.h"

namespace foundry::cuda {
namespace {

constexpr size_t kMostGraphs = 24, kMostSeen = 64;
constexpr size_t kOfOneKind = 4;  // steps ahead take turns with their inputs' places: each has a graph that fits
constexpr size_t kFewest = 8;     // launches that a graph is made for

bool same_kind(const Launch& a, const Launch& b) {
  return a.function == b.function && a.threads == b.threads && a.is_beside == b.is_beside;
}
bool same_kind(const std::vector<Launch>& a, const std::vector<Launch>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Launch& x, const Launch& y) { return same_kind(x, y); });
}

bool same(const Launch& a, const Launch& b) {
  return a.grid.x == b.grid.x && a.grid.y == b.grid.y && a.grid.z == b.grid.z &&
         std::memcmp(&a.arguments, &b.arguments, sizeof a.arguments) == 0;
}

uint64_t kind_of(const std::vector<Launch>& launches) {
  uint64_t hash = launches.size();
  for (const Launch& one : launches) {
    const uint64_t kind[] = {reinterpret_cast<uint64_t>(one.function), uint64_t{one.threads} * 2 + one.is_beside};
    hash = hash64(std::as_bytes(std::span(kind)), hash);
  }
  return hash;
}

/// `parameters` is the one that its kernel has.
KernelNode node_of(const Launch& one, void** parameters) {
  return {one.function,     one.grid.x, one.grid.y, one.grid.z, one.threads, 1, 1,
          one.shared_bytes, parameters, nullptr,    nullptr,    nullptr};
}

}  // namespace

void Launches::clear() noexcept {
  for (const auto& one : made_) destroy(*one);
  made_.clear();
}

void Launches::run(const std::vector<Launch>& launches, Stream stream) {
  ++now_;
  if (launches.size() < kFewest) return one_by_one(launches, stream);
  const uint64_t kind = kind_of(launches);
  const bool is_seen = std::find(seen_.begin(), seen_.end(), kind) != seen_.end();
  if (!is_seen) {
    seen_.push_back(kind);
    if (seen_.size() > kMostSeen) seen_.pop_front();
    return one_by_one(launches, stream);
  }
  Made* made = nearest(launches);
  if (made == nullptr) {
    try {
      make(launches);
    } catch (const MemoryLimitError&) {  // a graph takes some: without it a step runs as well
      return one_by_one(launches, stream);
    }
    made = made_.back().get();
  }
  for (size_t i = 0; i < launches.size(); ++i) {
    if (same(made->launches[i], launches[i])) continue;
    void* parameters[] = {const_cast<metal_cuda::Arguments*>(&launches[i].arguments)};
    const KernelNode node = node_of(launches[i], parameters);
    gpu_->check(gpu_->driver().set_kernel(made->exec, made->nodes[i], &node), "a launch of a graph");
    made->launches[i] = launches[i];  // the graph has it
  }
  made->used = now_;
  gpu_->check(gpu_->driver().launch_graph(made->exec, stream), "a graph");
}

void Launches::one_by_one(const std::vector<Launch>& launches, Stream stream) {
  for (const Launch& one : launches) {
    void* parameters[] = {const_cast<metal_cuda::Arguments*>(&one.arguments)};
    gpu_->check(gpu_->driver().launch(one.function, one.grid.x, one.grid.y, one.grid.z, one.threads, 1, 1,
                                      one.shared_bytes, stream, parameters, nullptr),
                "a launch");
  }
}

/// The graph of this kind that has the fewest launches to set; null: one more is to be made.
Launches::Made* Launches::nearest(const std::vector<Launch>& launches) {
  Made* found = nullptr;
  size_t fewest = 0, n = 0;
  for (const auto& one : made_) {
    if (!same_kind(one->launches, launches)) continue;
    ++n;
    size_t differ = 0;
    for (size_t i = 0; i < launches.size(); ++i) differ += same(one->launches[i], launches[i]) ? 0 : 1;
    if (found == nullptr || differ < fewest) found = one.get(), fewest = differ;
  }
  const bool fits = fewest <= launches.size() / 8;
  return fits || n == kOfOneKind ? found : nullptr;
}

void Launches::make(const std::vector<Launch>& launches) {
  const Driver& driver = gpu_->driver();
  auto made = std::make_unique<Made>();
  try {
    gpu_->check(driver.make_graph(&made->graph, 0), "a graph");
    made->launches = launches;
    made->nodes.reserve(launches.size());
    // Launches beside each other are a set; each waits for all of the set before.
    // Early, where kernels wait for their inputs (metal/translate/cuda) and the driver has such edges.
    const bool begins_early = gpu_->properties().major >= 9 && driver.add_edges != nullptr;
    std::vector<GraphNode> before, set;
    for (Launch& one : made->launches) {
      if (!one.is_beside) before = std::exchange(set, {});
      void* parameters[] = {&one.arguments};
      const KernelNode kernel = node_of(one, parameters);
      GraphNode node = nullptr;
      const size_t behind = begins_early ? 0 : before.size();
      gpu_->check(driver.add_kernel(&node, made->graph, before.data(), behind, &kernel), "a graph's launch");
      for (size_t i = 0; begins_early && i < before.size(); ++i)
        gpu_->check(driver.add_edges(made->graph, &before[i], &node, &kWhenLet, 1), "a graph's order");
      made->nodes.push_back(node);
      set.push_back(node);
    }
    gpu_->check(driver.instantiate(&made->exec, made->graph, 0), "a graph");
    if (made_.size() == kMostGraphs) {
      const auto oldest =
          std::min_element(made_.begin(), made_.end(), [](const auto& a, const auto& b) { return a->used < b->used; });
      destroy(**oldest);
      made_.erase(oldest);
    }
    made_.push_back(std::move(made));
  } catch (...) {
    if (made != nullptr) destroy(*made);
    throw;
  }
}

/// The driver keeps what is under way until it has ended.
void Launches::destroy(const Made& made) noexcept {
  if (made.exec != nullptr) gpu_->driver().destroy_exec(made.exec);
  if (made.graph != nullptr) gpu_->driver().destroy_graph(made.graph);
}

}  // namespace foundry::cuda
