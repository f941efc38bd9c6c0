#include "software_cuda/card.h"

#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "software_cuda/machine.h"

namespace software_cuda {
namespace {
constexpr uint64_t kMostPoison = uint64_t{4} << 20;  // bytes; more would only make the system find pages
}  // namespace

Card& Card::the() {
  static Card* card = new Card;  // threads of the process's end may still call
  return *card;
}

uint64_t Card::allocate(uint64_t bytes, bool host) {
  if (!host && used_bytes_ + bytes > software_cuda_settings().memory) return 0;
  uint64_t address = 0;
  if (host) {
    void* data = nullptr;
    if (posix_memalign(&data, 4096, bytes) != 0) return 0;
    std::memset(data, 0xff, std::min(bytes, kMostPoison));
    address = reinterpret_cast<uint64_t>(data);
  } else {
    try {
      std::byte* data = reach_.map(bytes).data;
      const foundry::test::Reach::Open open(reach_);
      std::memset(data, 0xff, std::min(bytes, kMostPoison));  // every float a NaN
      address = reinterpret_cast<uint64_t>(data);
    } catch (const foundry::Error&) {
      return 0;
    }
    used_bytes_ += bytes;
  }
  blocks_[address] = {bytes, host};
  return address;
}

bool Card::free(uint64_t address, bool host) {
  const auto found = blocks_.find(address);
  if (found == blocks_.end() || found->second.host != host) return false;
  run_until(enqueued_);  // as the driver does
  if (host) {
    std::free(reinterpret_cast<void*>(address));
  } else {
    reach_.unmap({reinterpret_cast<std::byte*>(address), found->second.bytes});
    used_bytes_ -= found->second.bytes;
  }
  blocks_.erase(found);
  return true;
}

uint64_t Card::free_bytes() const { return software_cuda_settings().memory - used_bytes_; }

uint64_t Card::length_at(uint64_t address) const {
  auto found = blocks_.upper_bound(address);
  if (found == blocks_.begin()) return 0;
  --found;
  const uint64_t end = found->first + found->second.bytes;
  return address < end ? end - address : 0;
}

bool Card::is_pinned(const void* data) const {
  auto found = blocks_.upper_bound(reinterpret_cast<uint64_t>(data));
  if (found == blocks_.begin()) return false;
  --found;
  return found->second.host && reinterpret_cast<uint64_t>(data) < found->first + found->second.bytes;
}

uint64_t Card::enqueue(std::function<Result()> work) {
  queue_.push_back({++enqueued_, std::move(work)});
  return enqueued_;
}

Result Card::run_until(uint64_t number) {
  if (queue_.empty() || queue_.front().number > number) return failed_;
  const foundry::test::Reach::Open open(reach_);
  while (!queue_.empty() && queue_.front().number <= number) {
    if (failed_ == 0) failed_ = queue_.front().run();
    queue_.pop_front();
  }
  return failed_;
}

}  // namespace software_cuda
