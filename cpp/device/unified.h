// DeviceMemory where host and kernels have one memory: copies are the host's, and a window is the memory itself.
#pragma once
#include "device/memory.h"

namespace foundry {

template <class Base>
class Unified : public Base {
 public:
  bool unified() const final { return true; }
  std::byte* window(const Span& of, const Span&) final {
    settle();
    return view(of);
  }
  void upload(const Span& to, std::span<const std::byte> from) final {
    std::byte* at = window(to, {});
    if (at != from.data() && !from.empty()) std::memcpy(at, from.data(), from.size());
  }
  void download(const Span& from, std::span<std::byte> to) final {
    const std::byte* at = window(from, {});
    if (at != to.data() && !to.empty()) std::memcpy(to.data(), at, to.size());
  }
  void copy(const Span& from, const Span& to, uint64_t bytes) final {
    settle();
    std::memcpy(view(to), view(from), bytes);
  }

 protected:
  /// Where the host has it.
  virtual std::byte* view(const Span& of) const { return of.as<std::byte>(); }
  /// Until the steps submitted so far have ended, well or not.
  virtual void settle() noexcept {}
};

}  // namespace foundry
