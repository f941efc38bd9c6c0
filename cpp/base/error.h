// Typed errors of the core. Each becomes the Python class of the same name (bindings/errors.cpp).
// A message says what was expected and what was found, or what was needed and what was available.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <system_error>

namespace foundry {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The caller's fault: Python's ValueError.
struct ValueError : Error {
  using Error::Error;
};

/// The file's fault: damaged, hostile, or of a kind that is not supported.
struct ModelFormatError : Error {
  using Error::Error;
};

/// A run would pass the model's (or the session's) last position.
struct ContextOverflowError : Error {
  ContextOverflowError(const std::string& what, int64_t needed_tokens, int64_t available_tokens)
      : Error(what), needed(needed_tokens), available(available_tokens) {}
  int64_t needed;
  int64_t available;
};

/// The system refused: a file, a descriptor, a thread. Python's OSError, with errno and the file's name where there is
/// one.
struct IoError : Error {
  IoError(const std::string& file, const std::string& why, int errno_code)
      : Error(file.empty() ? why : file + ": " + why), path(file), reason(why), code(errno_code) {}
  std::string path;    // empty: no file's affair
  std::string reason;  // what(), without the path
  int code;            // errno
};

/// The error of a call of the system's that failed: "chat.kv: cannot be written: No space left on device".
inline IoError system_refusal(const std::string& path, const char* what, int errno_code) {
  return {path, std::string(what) + ": " + std::system_category().message(errno_code), errno_code};
}

/// Memory that cannot be promised or had.
struct MemoryLimitError : Error {
  MemoryLimitError(const std::string& what, uint64_t needed, uint64_t available)
      : Error(what), needed_bytes(needed), available_bytes(available) {}
  uint64_t needed_bytes;
  uint64_t available_bytes;
};

/// The step was cancelled; position is where it was.
struct CancelledError : Error {
  using Error::Error;
};

/// No token can be drawn from a row of logits: it holds a NaN or +infinity, or nothing but -infinity.
struct NumericError : Error {
  NumericError(const std::string& what, size_t index, uint64_t at) : Error(what), item(index), position(at) {}
  size_t item;        // of the call's batch: whose row it is
  uint64_t position;  // of the row: how many tokens lie before it
};

/// In a child process that was forked in the middle of a call of another thread.
struct ForkedError : Error {
  using Error::Error;
};

/// Two things that must agree do not: our fault.
struct ConsistencyError : Error {
  using Error::Error;
};

}  // namespace foundry
