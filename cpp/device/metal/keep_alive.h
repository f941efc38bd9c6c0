// Asks for something again and again while it is in use and for a while after, from a thread of its own, which sleeps
// otherwise.
#pragma once
#include <chrono>
#include <functional>
#include <memory>

namespace foundry {

class KeepAlive {
 public:
  struct Times {
    std::chrono::milliseconds every{500}, after{std::chrono::seconds(180)};
  };
  /// `ask` must not throw.
  KeepAlive(std::function<void()> ask, Times times);
  explicit KeepAlive(std::function<void()> ask) : KeepAlive(std::move(ask), Times{}) {}
  /// Nothing is asked any more. A forked child has no such thread, and does not wait for it.
  ~KeepAlive();
  KeepAlive(const KeepAlive&) = delete;

  /// In use now. Where the system gives no thread, nothing is asked: it is only slower then.
  void touch();

 private:
  struct Beat;
  std::unique_ptr<Beat> beat_;
};

}  // namespace foundry
