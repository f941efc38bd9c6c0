// What every kernel test needs: random numbers that are the same everywhere, buffers with guard bytes on both sides,
// weights, steps with poisoned scratch, and a comparison that says where and by how much.
#pragma once
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "cases/cases.h"
#include "device/device.h"
#include "formats/table.h"
#include "kernels/data.h"

namespace foundry::kernel_tests {

inline constexpr double kUnit = 0x1p-24;   // half an ulp of 1.0f: the relative error of one rounding
inline constexpr std::byte kGuard{0xFB};   // as f32, f16 or bf16 a large finite number: reading it shows in a result
inline constexpr std::byte kPoison{0xFF};  // a NaN in every float type
inline constexpr uint64_t kGuardBytes = 256;

/// Of those that tests asked for, the text.
inline std::set<std::string> cases_seen;

/// All of them; or, of the many of linear, linear_routed and attention, each n-th with FOUNDRY_CASE_STEP=n, where a run takes ten
/// times as long or more: under sanitizers, and on GPU kernels that a processor runs. Neighbours in the table differ in
/// one figure.
inline std::vector<cases::Case> cases_of(const std::string& op) {
  std::vector<cases::Case> found = cases::load(FOUNDRY_TEST_CASES_DIR "/kernels.cases", op);
  const char* step = std::getenv("FOUNDRY_CASE_STEP");
  int at = 0;
  if (step != nullptr && (op == "linear" || op == "linear_routed" || op == "attention"))
    std::erase_if(found, [&](const cases::Case&) { return at++ % std::stoi(step) != 0; });
  for (const cases::Case& one : found) cases_seen.insert(one.text);
  return found;
}

/// Whether the device has what the case asks for (formats.def has formats that GPUs do not read).
inline bool readable(const cases::Case& one, Device& device) {
  const auto use = one.op == "embed" ? &Format::table : one.has("k_type") ? &Format::kv : &Format::linear;
  for (const char* key : {"type", "k_type", "v_type"})
    for (const DType type : one.has(key) ? one.types(key) : std::vector<DType>{})
      if (!reads(format_of(type).*use, device.info().gpu)) return false;
  return true;
}

/// Of those, the ones that the device can run.
inline std::vector<cases::Case> cases_of(const std::string& op, Device& device) {
  std::vector<cases::Case> found = cases_of(op);
  std::erase_if(found, [&](const cases::Case& one) { return !readable(one, device); });
  return found;
}

/// Roundings of a sum of n products, each at most kUnit of the running sum: n is the worst case, but errors of both
/// signs cancel as a random walk (Higham and Mary, 2019: sqrt(n) times a small constant, whatever the order), so 8
/// sqrt(n) holds in practice and is the sharper where n > 64.
inline double roundings(double n) { return std::min(n, 8 * std::sqrt(n)) + 4; }

/// The one device to test, where a program is for it alone.
inline std::string only_device;

/// Those that must be there (FOUNDRY_NEEDS_DEVICES, by commas): to make one that is not is an error, so no gate is
/// green without it.
inline std::vector<std::string> needed_devices() {
  const char* needed = std::getenv("FOUNDRY_NEEDS_DEVICES");
  std::istringstream text(needed == nullptr ? "" : needed);
  std::vector<std::string> names;
  for (std::string name; std::getline(text, name, ',');)
    if (!name.empty()) names.push_back(name);
  return names;
}

/// Every device but the reference, once: "cpu" and "cpu:<best>" are the same.
inline std::vector<std::string> other_devices() {
  if (!only_device.empty()) return {only_device};
  std::vector<std::string> names;
  std::set<std::string> seen;
  std::vector<std::string> known = device_names(), needed = needed_devices();
  known.insert(known.end(), needed.begin(), needed.end());
  for (const std::string& name : known) {
    if (name == "reference") continue;
    const auto device = make_device({name, 1, {}});
    if (seen.insert(device->info().name + ":" + device->info().isa).second) names.push_back(name);
  }
  return names;
}

inline std::vector<std::string> all_devices() {
  std::vector<std::string> names = other_devices();
  if (!only_device.empty()) return names;
  names.push_back("reference");
  return names;
}

/// An array in a device's memory, guard bytes before and behind it; the array itself is poison until it is written.
class Guarded {
 public:
  Guarded(Device& device, uint64_t bytes)
      : memory_(&device),
        buffer_(device.allocate(bytes + 2 * kGuardBytes, MemoryKind::device)),
        room_(device, bytes + 2 * kGuardBytes) {
    refill(bytes);
  }
  /// Poison again, of another length: what it was made with or less.
  void refill(uint64_t bytes) {
    const std::span<std::byte> all = window();
    std::memset(all.data(), static_cast<int>(kGuard), all.size());
    std::memset(all.data() + kGuardBytes, static_cast<int>(kPoison), bytes);
    memory_->upload({buffer_.get(), 0}, all);
    bytes_ = bytes;
  }
  template <class T>
  Guarded(Device& device, const std::vector<T>& values) : Guarded(device, values.size() * sizeof(T)) {
    write(values);
  }
  template <class T>
  void write(const std::vector<T>& values) const {
    memory_->upload(span(), std::as_bytes(std::span(values)));
  }
  Span span() const { return {buffer_.get(), kGuardBytes}; }
  uint64_t address() const { return buffer_->address() + kGuardBytes; }
  bool guards_intact() const {
    const std::span<std::byte> all = window();
    memory_->download({buffer_.get(), 0}, all);
    for (uint64_t i = 0; i < kGuardBytes; ++i)
      if (all[i] != kGuard || all[kGuardBytes + bytes_ + i] != kGuard) return false;
    return true;
  }
  template <class T>
  std::vector<T> read() const {
    std::vector<T> values(bytes_ / sizeof(T));
    memory_->download(span(), std::as_writable_bytes(std::span(values)));
    return values;
  }
  /// The values, once it is sure that nothing was written beside them.
  std::vector<float> result(const std::string& who) const {
    CHECK_MESSAGE(guards_intact(), who, ": a byte outside the output was written");
    return read<float>();
  }

 private:
  std::span<std::byte> window() const { return {memory_->window({buffer_.get(), 0}, room_.span()), buffer_->bytes()}; }

  DeviceMemory* memory_;
  std::unique_ptr<Buffer> buffer_;
  Room room_;
  uint64_t bytes_ = 0;
};

/// A device and its scratch, which each step finds poisoned and guarded. The memory is kept: to map it anew for each
/// step would cost more than all the kernels do.
class TestDevice {
 public:
  explicit TestDevice(const std::string& name, uint32_t threads = 1) : device_(make_device({name, threads, {}})) {}
  Device& operator*() const { return *device_; }
  Device* operator->() const { return device_.get(); }

  void step(const StepShape& shape, const std::string& who, const std::function<void()>& ops) {
    const uint64_t bytes = device_->scratch_bytes(shape);
    if (scratch_ == nullptr || bytes > most_) scratch_ = std::make_unique<Guarded>(*device_, most_ = bytes);
    scratch_->refill(bytes);
    device_->begin(scratch_->span(), shape);
    ops();
    device_->wait(device_->submit());
    CHECK_MESSAGE(scratch_->guards_intact(), who, ": a byte outside the scratch was written");
  }

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<Guarded> scratch_;
  uint64_t most_ = 0;
};

inline StepShape plain_shape(uint32_t rows, uint32_t width) { return {rows, width, 1, 1, 1, 8}; }

inline std::unique_ptr<Weight> prepare(Device& device, const WeightData& data, WeightUse use) {
  auto weight = device.prepare(data.view(), use);
  CHECK_MESSAGE(weight->private_bytes == device.prepared_bytes(data.view(), use), device.info().isa,
                ": prepared_bytes is not what ", dtype_name(data.type), " ", data.rows, " x ", data.cols, " takes");
  return weight;
}

/// Empty, or the first place where the difference passes the bound. A NaN passes any bound: poison must not hide in
/// both.
inline std::string compare(const std::vector<float>& found, const std::vector<float>& expected,
                           const std::function<double(size_t)>& bound) {
  if (found.size() != expected.size()) return "sizes differ";
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] == expected[i]) continue;
    const double off = std::fabs(static_cast<double>(found[i]) - expected[i]);
    if (off <= bound(i)) continue;
    return "at " + std::to_string(i) + " of " + std::to_string(found.size()) + ": expected " +
           std::to_string(expected[i]) + ", found " + std::to_string(found[i]) + ", off by " +
           std::to_string(off / bound(i)) + " times the bound of " + std::to_string(bound(i) * 1e6) + "e-6";
  }
  return "";
}

/// Empty, or the first place whose bits differ.
inline std::string compare_bits(const std::vector<float>& found, const std::vector<float>& expected) {
  if (found.size() != expected.size()) return "sizes differ";
  for (size_t i = 0; i < found.size(); ++i)
    if (std::memcmp(&found[i], &expected[i], sizeof(float)) != 0)
      return "bits differ at " + std::to_string(i) + " of " + std::to_string(found.size()) + ": " +
             std::to_string(expected[i]) + " and " + std::to_string(found[i]) + ", " +
             std::to_string(static_cast<double>(found[i]) - expected[i]) + " apart";
  return "";
}

/// Rows begin .. begin + n of a matrix.
inline std::vector<float> rows_of(const std::vector<float>& x, uint64_t width, uint64_t begin, uint64_t n) {
  return {x.begin() + static_cast<int64_t>(begin * width), x.begin() + static_cast<int64_t>((begin + n) * width)};
}

}  // namespace foundry::kernel_tests
