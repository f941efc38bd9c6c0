#include "device/cuda/told.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"

namespace foundry::cuda {
namespace {
constexpr uint64_t kChunkBytes = 64 << 10, kAlign = 256;
}  // namespace

std::unique_ptr<Buffer> Told::room() {
  if (free_.empty()) return memory_->allocate(kChunkBytes, MemoryKind::shared);
  std::unique_ptr<Buffer> one = std::move(free_.back());
  free_.pop_back();
  return one;
}

Address Told::tell(const void* data, uint64_t bytes) {
  for (const Entry& one : entries_)
    if (one.data == data && one.bytes == bytes && std::memcmp(host_[one.chunk]->host() + one.offset, data, bytes) == 0)
      return device_[one.chunk]->address() + one.offset;
  if (bytes > kChunkBytes)
    throw ConsistencyError("cuda: a launch is told " + std::to_string(bytes) + " bytes, at most " +
                           std::to_string(kChunkBytes));
  if (host_.empty() || offset_ + bytes > kChunkBytes) {
    host_.push_back(room());
    if (device_.size() < host_.size()) device_.push_back(memory_->allocate(kChunkBytes, MemoryKind::device));
    offset_ = 0;
  }
  const size_t chunk = host_.size() - 1;
  const Address to = device_[chunk]->address() + offset_;
  std::memcpy(host_[chunk]->host() + offset_, data, bytes);
  entries_.push_back({data, bytes, offset_, chunk});
  offset_ = (offset_ + bytes + kAlign - 1) / kAlign * kAlign;
  return to;
}

void Told::send(Stream stream) {
  for (size_t i = 0; i < host_.size(); ++i) {
    const uint64_t bytes = i + 1 == host_.size() ? offset_ : kChunkBytes;
    gpu_->check(gpu_->driver().upload(device_[i]->address(), host_[i]->host(), bytes, stream),
                "what launches are told");
  }
}

void Told::dropped() noexcept {
  host_.clear();
  entries_.clear();
  offset_ = 0;
}

void Told::submitted(uint64_t step, uint64_t ended) {
  for (std::unique_ptr<Buffer>& one : host_) used_.push_back({step, std::move(one)});
  dropped();
  while (!used_.empty() && used_.front().step <= ended) {
    free_.push_back(std::move(used_.front().host));
    used_.pop_front();
  }
}

}  // namespace foundry::cuda
