#include "base/mapped_file.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/system_page.h"

namespace foundry {
namespace {

/// The usual read-ahead: of more than its own at once the system takes a part.
constexpr uint64_t kAtOnce = 128 << 10;

/// Advice is advice: where the system does not take it, nothing is lost but speed.
void advise(const std::byte* data, uint64_t begin, uint64_t end, int advice) {
  if (begin < end) ::madvise(const_cast<std::byte*>(data) + begin, static_cast<size_t>(end - begin), advice);
}

}  // namespace

MappedFile::MappedFile(const std::string& path, uint64_t most_bytes) : file_(path) {
  const uint64_t bytes = std::min(file_.size(), most_bytes);
  void* address = MAP_FAILED;
  errno = ENOMEM;  // where a file is larger than what can be addressed
  if (bytes <= std::numeric_limits<size_t>::max())
    address = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ, MAP_SHARED, file_.descriptor(), 0);
  if (address == MAP_FAILED && errno == ENOMEM)
    throw MemoryLimitError(path + ": cannot be mapped: needed " + std::to_string(bytes) +
                               " bytes of address space, available less: " + std::system_category().message(ENOMEM),
                           bytes, 0);
  if (address == MAP_FAILED) throw system_refusal(path, "cannot be mapped", errno);
  data_ = static_cast<const std::byte*>(address);
  size_ = bytes;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size()));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : file_(std::move(other.file_)), size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  // The other object takes what was ours, and unmaps it at its end.
  std::swap(file_, other.file_);
  std::swap(size_, other.size_);
  std::swap(data_, other.data_);
  return *this;
}

void MappedFile::advise(const std::byte* data, uint64_t bytes, Need need) const {
  if (data < data_ || data >= data_ + size_) return;
  const auto offset = static_cast<uint64_t>(data - data_);
  need == Need::now ? advise_needed(offset, bytes) : advise_unneeded(offset, bytes);
}

void MappedFile::advise_needed(uint64_t offset, uint64_t bytes) const {
  const uint64_t begin = std::min(offset, size()), end = begin + std::min(bytes, size() - begin);
  for (uint64_t at = begin - begin % system_page(); at < end; at += kAtOnce)
    foundry::advise(data_, at, std::min(at + kAtOnce, end), MADV_WILLNEED);
}

void MappedFile::advise_sequential(uint64_t offset, uint64_t bytes) const {
  const uint64_t begin = std::min(offset, size());
  foundry::advise(data_, begin - begin % system_page(), begin + std::min(bytes, size() - begin), MADV_SEQUENTIAL);
}

void MappedFile::advise_unneeded(uint64_t offset, uint64_t bytes) const {
  const uint64_t page = system_page();
  const uint64_t begin = std::min(offset, size());
  const uint64_t end = begin + std::min(bytes, size() - begin);
  const uint64_t first = (begin + page - 1) / page * page;
  // The last page of the file has no neighbour behind it.
  const uint64_t last = end == size() ? end : end - end % page;
  foundry::advise(data_, first, last, MADV_DONTNEED);
}

}  // namespace foundry
