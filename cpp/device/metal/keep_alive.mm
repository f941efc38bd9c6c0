#include "device/metal/keep_alive.h"

#include <condition_variable>
#include <system_error>
#include <thread>

#include "base/forks.h"
#include "base/lock_order.h"

namespace foundry {

struct KeepAlive::Beat {
  using Clock = std::chrono::steady_clock;

  void run() {
    RankedLock lock(mutex);
    while (!ends) {
      if (Clock::now() >= until) {
        wake.wait(lock.native(), [this] { return ends || Clock::now() < until; });
        continue;
      }
      wake.wait_for(lock.native(), times.every, [this] { return ends; });
      if (ends || Clock::now() >= until) continue;
      lock.unlock();
      ask();
      lock.lock();
    }
  }

  std::function<void()> ask;
  Times times;
  RankedMutex mutex{LockRank::gpu_memory};
  std::condition_variable wake;
  Clock::time_point until;
  bool ends = false;
  std::thread thread;
  uint64_t generation = fork_generation();
};

KeepAlive::KeepAlive(std::function<void()> ask, Times times) : beat_(std::make_unique<Beat>()) {
  beat_->ask = std::move(ask), beat_->times = times;
}

KeepAlive::~KeepAlive() {
  if (beat_->generation != fork_generation()) {
    beat_.release();
    return;
  }
  {
    const std::lock_guard lock(beat_->mutex);
    beat_->ends = true;
  }
  beat_->wake.notify_all();
  if (beat_->thread.joinable()) beat_->thread.join();
}

void KeepAlive::touch() {
  if (beat_->generation != fork_generation()) return;
  bool slept = false;
  {
    const std::lock_guard lock(beat_->mutex);
    const auto now = Beat::Clock::now();
    slept = now >= beat_->until;
    beat_->until = now + beat_->times.after;
    if (!beat_->thread.joinable()) try {
        beat_->thread = std::thread([beat = beat_.get()] { beat->run(); });
      } catch (const std::system_error&) {}
  }
  if (slept) beat_->wake.notify_all();
}

}  // namespace foundry
