// Memory of a device, in three kinds, and the ways between it and the host. Nothing above the devices assumes that the
// host sees what is `device` memory: bytes go in by upload(), come out by download(), and move by copy().
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

namespace foundry {

enum class MemoryKind : uint32_t {
  device,    // weights, pages, activations: where kernels are fast. The host has no pointer to it
  shared,    // results: host and kernels see the same bytes
  mirrored,  // page tables and inputs: the host writes, kernels read. Where the two have memories of their own, each has
             // a copy, and kernels don't cross the bus
};

class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual std::byte* host() = 0;         // of `shared` and `mirrored` memory; null: `device` memory
  virtual uint64_t address() const = 0;  // the address that kernels see
  virtual uint64_t bytes() const = 0;
  /// The host has written these bytes of `mirrored` memory: steps that are submitted from now on see them. The host
  /// leaves them as they are until those that are to see them have ended.
  virtual void wrote(uint64_t /*offset*/, uint64_t /*n*/) {}
};

/// A place inside a buffer.
struct Span {
  Buffer* buffer = nullptr;
  uint64_t offset = 0;
  /// The host's pointer into `shared` or `mirrored` memory.
  template <class T>
  T* host() const {
    return reinterpret_cast<T*>(buffer->host() + offset);
  }
  /// What a kernel of a device that runs on the host reads and writes, of either kind; null without a buffer.
  template <class T>
  T* as() const {
    return buffer == nullptr ? nullptr : reinterpret_cast<T*>(buffer->address() + offset);
  }
};

/// Thread-safe: sessions open, close, fork, save and restore while a step of others runs or is encoded, which must not
/// touch the same bytes.
///
/// Order: upload(), download(), copy() and window() begin when every step submitted before has ended, well or not, and
/// steps submitted later see what they wrote. The host's side of them is done on return. Who has copied a page may
/// change its table: no step under way reads either. The host's own writes to `shared` and `mirrored` memory have no order: who
/// changes what a step reads waits for that step first.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;

  /// Zero-filled or not is the device's affair. Throws MemoryLimitError when the system has no more.
  virtual std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) = 0;
  /// The host sees `device` memory too, as processors and GPUs with one memory for both do.
  virtual bool unified() const = 0;

  /// Where the host may write what upload() then takes, or have what download() gives: the memory itself where it is
  /// unified, and no byte is copied; else `room`, in `shared` memory. Valid until a step that touches those bytes.
  virtual std::byte* window(const Span& of, const Span& room) = 0;
  virtual void upload(const Span& to, std::span<const std::byte> from) = 0;
  virtual void download(const Span& from, std::span<std::byte> to) = 0;
  /// Places that don't overlap.
  virtual void copy(const Span& from, const Span& to, uint64_t bytes) = 0;

  /// Bytes of the room that window() wants for so many.
  uint64_t room_bytes(uint64_t bytes) const { return unified() ? 0 : bytes; }
};

/// A room of one's own for window(): `shared` memory, or none where it is unified.
class Room {
 public:
  Room(DeviceMemory& memory, uint64_t bytes) {
    if (const uint64_t needed = memory.room_bytes(bytes); needed != 0)
      buffer_ = memory.allocate(needed, MemoryKind::shared);
  }
  Span span() const { return {buffer_.get(), 0}; }

 private:
  std::unique_ptr<Buffer> buffer_;
};

}  // namespace foundry
