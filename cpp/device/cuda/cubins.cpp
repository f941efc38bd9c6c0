#include "device/cuda/cubins.h"

#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/input_file.h"

namespace foundry::cuda {
namespace {

namespace fs = std::filesystem;
constexpr const char* kFolder = "cuda-";
constexpr std::chrono::hours kOldAfter{24 * 14};
constexpr std::array<char, 8> kMagic{'F', 'D', 'C', 'U', 'B', 'I', 'N', '1'};

/// In front of the cubin.
struct Header {
  std::array<char, 8> magic;
  uint64_t bytes, hash;
};

void remove_old(const std::string& cache_dir, const std::string& kept) {
  const auto old = fs::file_time_type::clock::now() - kOldAfter;
  std::error_code failed;
  for (fs::directory_iterator it(cache_dir, failed), end; !failed && it != end; it.increment(failed)) {
    std::error_code ignored;  // another process may have been quicker
    const std::string name = it->path().filename().string();
    if (name.starts_with(kFolder) && name != kept && fs::last_write_time(it->path(), ignored) < old && !ignored)
      fs::remove_all(it->path(), ignored);
  }
}

}  // namespace

Cubins::Cubins(const std::string& cache_dir, const std::string& kind) {
  if (cache_dir.empty()) return;
  std::string name = kFolder;
  for (const char c : kind) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.';
    name += plain ? c : '-';
  }
  std::error_code failed;
  fs::create_directories(cache_dir + "/" + name, failed);
  if (failed) return;
  remove_old(cache_dir, name);
  folder_ = cache_dir + "/" + name;
}

std::string Cubins::path_of(const std::string& name) const { return folder_ + "/" + name + ".cubin"; }

std::optional<std::vector<std::byte>> Cubins::load(const std::string& name) const {
  if (folder_.empty()) return std::nullopt;
  try {
    const InputFile file(path_of(name));
    Header header{};
    if (file.read(0, std::as_writable_bytes(std::span(&header, 1))) < sizeof header || header.magic != kMagic ||
        header.bytes != file.size() - sizeof header)
      return std::nullopt;
    std::vector<std::byte> cubin(header.bytes);
    if (file.read(sizeof header, cubin) < cubin.size() || hash64(cubin) != header.hash) return std::nullopt;
    return cubin;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void Cubins::save(const std::string& name, const std::vector<std::byte>& cubin) const {
  if (folder_.empty()) return;
  const Header header{kMagic, cubin.size(), hash64(cubin)};
  try {
    AtomicFile file(path_of(name));
    file.write(std::as_bytes(std::span(&header, 1)));
    file.write(cubin);
    file.commit();
  } catch (const IoError&) {}  // the next run compiles again
}

}  // namespace foundry::cuda
