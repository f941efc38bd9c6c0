// The launches of a step, and how they reach the card: one by one, or, where a step is like one before it, as a graph
// that is launched at once. Kernels of a graph follow each other without the host, and those that say so run beside
// each other.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "device/cuda/gpu.h"
#include "device/gpu/kernel_queue.h"
#include "launch_arguments.h"

namespace foundry::cuda {

struct Launch {
  Function function;
  Grid grid;
  uint32_t threads, shared_bytes;
  bool is_beside;  // Dispatch's
  metal_cuda::Arguments arguments;
};

/// One thread at a time. A graph is made when a step's functions have been seen before, in their order; grids and
/// arguments that differ from the last time are set in it. So a decode step, whose history grows and whose inputs
/// change places, sets a few of hundreds.
class Launches {
 public:
  explicit Launches(std::shared_ptr<Gpu> gpu) : gpu_(std::move(gpu)) {}
  ~Launches() { clear(); }
  Launches(const Launches&) = delete;

  /// All of them, in order, behind what is in the stream. Where it throws, some may be under way.
  void run(const std::vector<Launch>& launches, Stream stream);
  /// The graphs go.
  void clear() noexcept;

 private:
  struct Made {
    std::vector<Launch> launches;  // as the graph has them
    std::vector<GraphNode> nodes;
    Graph graph = nullptr;
    GraphExec exec = nullptr;
    uint64_t used = 0;  // when last
  };
  void one_by_one(const std::vector<Launch>& launches, Stream stream);
  Made* nearest(const std::vector<Launch>& launches);
  void make(const std::vector<Launch>& launches);
  void destroy(const Made& made) noexcept;

  const std::shared_ptr<Gpu> gpu_;
  std::vector<std::unique_ptr<Made>> made_;
  std::deque<uint64_t> seen_;  // functions of steps, hashed, the latest last
  uint64_t now_ = 0;
};

}  // namespace foundry::cuda
