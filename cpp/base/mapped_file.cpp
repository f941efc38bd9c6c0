#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace foundry {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void fail(const std::string& path, const std::string& what) { throw ModelFormatError(path + ": " + what); }

std::string system_reason() { return std::system_category().message(errno); }

uint64_t system_page() { return static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)); }

/// Advice is advice: where the system does not take it, nothing is lost but speed.
void advise(const std::byte* data, uint64_t begin, uint64_t end, int advice) {
  if (begin < end) ::madvise(const_cast<std::byte*>(data) + begin, static_cast<size_t>(end - begin), advice);
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer; it is refused just below.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) fail(path, "cannot be opened: " + system_reason());
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) fail(path, "cannot be examined: " + system_reason());
  if (!S_ISREG(info.st_mode)) fail(path, "expected a regular file, found a directory or a device");
  if (info.st_size <= 0) fail(path, "expected a file with contents, found an empty one");
  const uint64_t bytes = static_cast<uint64_t>(info.st_size);
  if (bytes > std::numeric_limits<size_t>::max())
    fail(path, "file of " + std::to_string(bytes) + " bytes: more than this machine can map");
  void* address = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) fail(path, "cannot be mapped (" + std::to_string(bytes) + " bytes): " + system_reason());
  data_ = static_cast<const std::byte*>(address);
  size_ = bytes;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  // The other object takes what was ours, and unmaps it at its end.
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::advise_needed(uint64_t offset, uint64_t bytes) const {
  const uint64_t begin = std::min(offset, size_);
  advise(data_, begin - begin % system_page(), begin + std::min(bytes, size_ - begin), MADV_WILLNEED);
}

void MappedFile::advise_sequential(uint64_t offset, uint64_t bytes) const {
  const uint64_t begin = std::min(offset, size_);
  advise(data_, begin - begin % system_page(), begin + std::min(bytes, size_ - begin), MADV_SEQUENTIAL);
}

void MappedFile::advise_unneeded(uint64_t offset, uint64_t bytes) const {
  const uint64_t page = system_page();
  const uint64_t begin = std::min(offset, size_);
  const uint64_t end = begin + std::min(bytes, size_ - begin);
  const uint64_t first = (begin + page - 1) / page * page;
  // The last page of the file has no neighbour behind it.
  const uint64_t last = end == size_ ? end : end - end % page;
  advise(data_, first, last, MADV_DONTNEED);
}

}  // namespace foundry
