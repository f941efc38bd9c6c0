// The GPUs of this machine, and the context that this process has on each: the primary one, which other libraries of
// the process share and which stays until the process ends. What a GPU reports becomes a typed error here; after some
// reports the context takes nothing more, and then every call is refused.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "device/cuda/driver.h"
#include "device/device.h"

namespace foundry::cuda {

/// What can be known of a GPU without a context.
struct Properties {
  int index = 0;
  std::string name;  // "NVIDIA H100 80GB HBM3"
  uint64_t memory_bytes = 0;
  int major = 0, minor = 0;  // compute capability
  /// Whether the kernels run there: their matrix tiles are m16n8k16 products, which came with 8.0.
  bool has_tiles() const { return major >= 8; }
  /// Whether it has wgmma, which is Hopper's alone.
  bool has_wide_tiles() const { return major == 9 && minor == 0; }
};

/// In the driver's order; none where there is no driver.
std::vector<Properties> gpus();

class Gpu {
 public:
  /// One for each in the process. ValueError where there is none with this index, or where it is too old.
  static std::shared_ptr<Gpu> open(int index);

  const Properties& properties() const { return properties_; }
  const Driver& driver() const { return driver_; }

  /// The context is this thread's as long as it lives.
  class Current {
   public:
    explicit Current(const Gpu& gpu);
    ~Current();
    Current(const Current&) = delete;

   private:
    const Gpu& gpu_;
    bool pushed_ = false;
  };

  /// Throws what the result says: MemoryLimitError or ConsistencyError.
  void check(Result result, const char* what, uint64_t bytes = 0);
  /// ConsistencyError once the context is lost.
  void check_alive() const;
  bool is_lost() const { return lost_.load(std::memory_order_relaxed) != kSuccess; }
  /// What the card has free now; 0: it does not say.
  uint64_t free_bytes() const;

 private:
  Gpu(const Driver& driver, Properties properties, Context context);
  [[noreturn]] void throw_lost() const;

  const Driver& driver_;
  Properties properties_;
  Context context_;
  std::atomic<Result> lost_{kSuccess};  // the report after which nothing more is taken
};

}  // namespace foundry::cuda
