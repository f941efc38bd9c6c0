// A regular file, opened for reading. Its descriptor stays open as long as the object: what is read later is the file
// that was opened, whatever has taken its name meanwhile.
#pragma once
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace foundry {

/// What tells one state of a file from another without reading it.
struct FileIdentity {
  uint64_t device = 0, inode = 0, size = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;  // nobody can set it back; renames and changes of mode alter it too
  auto operator<=>(const FileIdentity&) const = default;
  /// As far as the system tells, nobody has written in between: a rename or another mode does not count.
  bool same_contents(const FileIdentity& other) const {
    return device == other.device && inode == other.inode && size == other.size && mtime_ns == other.mtime_ns;
  }
};

class InputFile {
 public:
  /// IoError where the system refuses; ModelFormatError for a folder, a device, or an empty file.
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  int descriptor() const { return fd_; }
  /// When it was opened.
  const FileIdentity& opened() const { return opened_; }
  uint64_t size() const { return opened_.size; }
  FileIdentity identity_now() const;
  /// Reads from `offset` on. Returns the bytes read: fewer than asked for only where the file ends. IoError.
  uint64_t read(uint64_t offset, std::span<std::byte> to) const;

 private:
  std::string path_;
  int fd_ = -1;
  FileIdentity opened_;
};

}  // namespace foundry
