// What a GPU is asked for: memory, and kernels of metal/ by name, in order. GpuDevice decides which and with what;
// behind this interface is Metal, another GPU that runs the same kernels, or, in tests, the host.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "device/device.h"

namespace foundry {

struct Grid {
  uint32_t x = 1, y = 1, z = 1;
};

inline constexpr uint32_t kMostSlots = 16;
inline constexpr uint32_t kMostValueBytes = 64;

/// What a launch has to do: bytes to move and multiply-adds, about. For queues that give the GPU no more than a piece
/// at a time.
struct Work {
  double bytes = 0, products = 0;
};

/// One launch: buffers and small parameters at the indices of the kernel's [[buffer(n)]].
class Dispatch {
 public:
  struct Slot {
    const Buffer* buffer = nullptr;  // or null: bytes
    uint64_t offset = 0;
    const void* bytes = nullptr;  // read before dispatch() returns
    uint64_t n_bytes = 0;
    bool is_value = false;  // the kernel takes the bytes by reference, as one small parameter; else by pointer
  };

  Dispatch(const char* kernel, Grid grid, uint32_t threads) : grid(grid), threads(threads) {
    append(kernel);
    base_ = length_;
  }
  /// Longer names by parts, "linear" + "_" + "q4_0".
  Dispatch& of(const char* part) {
    append("_");
    append(part);
    if (first_ == 0) first_ = length_;
    return *this;
  }
  Dispatch& buffer(const Span& span) {
    slots[n_slots++] = {span.buffer, span.offset};
    return *this;
  }
  Dispatch& bytes(const void* data, uint64_t n) {
    slots[n_slots++] = {nullptr, 0, data, n};
    return *this;
  }
  template <class T>
  Dispatch& value(const T& data) {
    static_assert(sizeof data <= kMostValueBytes);
    bytes(&data, sizeof data);
    slots[n_slots - 1].is_value = true;
    return *this;
  }
  /// It touches nothing that the dispatch before it (and those that that one is beside) writes, nor writes what they
  /// read.
  Dispatch& beside() {
    is_beside = true;
    return *this;
  }
  /// Bytes of [[threadgroup(0)]].
  Dispatch& room(uint32_t bytes) {
    room_bytes = bytes;
    return *this;
  }
  Dispatch& costs(double bytes, double products = 0) {
    work = {bytes, products};
    return *this;
  }
  /// [[function_constant(index)]], a bool.
  Dispatch& constant(uint32_t index, bool value) {
    constants |= (value ? 1u : 0u) << index;
    n_constants = index + 1 > n_constants ? index + 1 : n_constants;
    return *this;
  }

  /// The name that it was made with.
  std::string base() const { return {kernel.data(), base_}; }
  /// What was put behind it first, "q4_0"; or empty.
  std::string part() const {
    return first_ == 0 ? std::string() : std::string(kernel.data() + base_ + 1, first_ - base_ - 1);
  }

  std::array<char, 64> kernel{};
  Grid grid;         // threadgroups
  uint32_t threads;  // of a threadgroup
  std::array<Slot, kMostSlots> slots{};
  uint32_t n_slots = 0;
  bool is_beside = false;
  uint32_t room_bytes = 0;
  Work work;
  uint32_t constants = 0, n_constants = 0;  // bits, by index

 private:
  void append(const char* part) {
    while (*part != 0 && length_ + 1 < kernel.size()) kernel[length_++] = *part++;
  }
  size_t length_ = 0, base_ = 0, first_ = 0;
};

class KernelQueue : public DeviceMemory {
 public:
  virtual const DeviceInfo& info() const = 0;
  /// Whether its kernels are those of few registers (kFewRegisters of kernel.h), which take less of a long head at a
  /// time.
  virtual bool few_registers() const { return true; }
  /// Whether its matrix tiles are worth their while for a few rows: then linear layers are linear_few's, and their
  /// weights are arranged for it.
  virtual bool narrow_tiles() const { return false; }
  /// Whether it has the kernels of metal/nvidia, whose tiles multiply halves out of threadgroup memory.
  virtual bool wide_tiles() const { return false; }
  /// Bytes of a private copy that wrap() will make; 0 where kernels can read the mapped bytes themselves. `place` is
  /// WeightView's.
  virtual uint64_t copied_bytes(uint64_t place, uint64_t n) const = 0;
  /// `device` memory that holds these bytes, which stay where they are as long as it lives.
  virtual std::unique_ptr<Buffer> wrap(const std::byte* data, uint64_t n) = 0;
  /// A step begins; what was dispatched and not submitted is dropped.
  virtual void begin() {}
  /// Runs behind everything dispatched before, and sees what that wrote; or beside the one before, as it says.
  virtual void dispatch(const Dispatch& launch) = 0;
  /// As Device has them.
  virtual uint64_t submit() = 0;
  virtual void drop() noexcept {}
  virtual void wait(uint64_t step) = 0;
};

}  // namespace foundry
