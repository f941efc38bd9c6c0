// The Metal device over the software Metal, where a case needs that to be another Mac, or a GPU that fails.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "base/error.h"
#include "device/metal/keep_alive.h"
#include "device/metal/trusted.h"
#include "kernels/support.h"
#include "metal_on_linux/software/gpu.h"
#include "metal_on_linux/software/machine.h"

namespace foundry::kernel_tests {
namespace {

using software_gpu::Machine;
namespace fs = std::filesystem;

/// Another Mac, or another fault, as long as it lives.
struct Played {
  explicit Played(const Machine& other, const std::string& fault = "")
      : machine(std::exchange(software_gpu::machine(), other)) {
    software_gpu::fault = fault;
  }
  ~Played() { software_gpu::machine() = machine, software_gpu::fault.clear(), software_gpu::only_timed = false; }
  Machine machine;
};

Machine with_family(int family) {
  Machine other;
  other.family = family;
  return other;
}

/// a + b on the GPU: right, or why not.
void adds(Device& device) {
  const std::vector<float> ones(100, 1.0f);
  const Guarded a(device, ones), b(device, ones), out(device, ones.size() * sizeof(float));
  Guarded scratch(device, 1024);
  device.begin(scratch.span(), plain_shape(1, 100));
  device.add({1, 100, a.span(), b.span(), out.span()});
  device.wait(device.submit());
  CHECK(out.result("add") == std::vector<float>(100, 2.0f));
}

/// A row of a table of halves.
void embeds_halves(Device& device) {
  const std::vector<uint16_t> table(16, 0x3c00);
  WeightView view;
  view.type = DType::f16, view.rows = 2, view.cols = 8;
  view.data = reinterpret_cast<const std::byte*>(table.data()), view.bytes = table.size() * sizeof(uint16_t);
  const auto weight = device.prepare(view, WeightUse::table);
  const Guarded tokens(device, std::vector<int32_t>{1}), out(device, 8 * sizeof(float));
  Guarded scratch(device, 1024);
  device.begin(scratch.span(), plain_shape(1, 8));
  device.embed({{1, 8, 2.0f}, weight.get(), tokens.span(), out.span()});
  device.wait(device.submit());
  CHECK(out.result("embed") == std::vector<float>(8, 2.0f));
}

/// Before a busy machine could fail it.
template <class F>
bool eventually(const F& holds) {
  for (int i = 0; i < 3000; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

std::string refusal(const std::string& name) {
  try {
    make_device({name, 1, {}});
  } catch (const ValueError& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a device of Apple's is found by the list, and by the default where that is empty") {
  for (const bool listed : {true, false}) {
    Machine mac;
    mac.listed = listed;
    const Played played(mac);
    const std::vector<std::string> names = device_names();
    CHECK(std::count(names.begin(), names.end(), "metal") == 1);
    adds(*make_device({"metal", 1, {}}));
  }
}

TEST_CASE("a GPU that no test has vouched for is taken by name alone, and another maker's never") {
  {
    const Played played(with_family(5));  // a virtual Mac
    const std::vector<std::string> names = device_names();
    for (const char* name : {"metal", "metal:strict", "metal:any"})
      CHECK(std::count(names.begin(), names.end(), name) == 0);
    CHECK(has(refusal("metal"), "metal:any; found \"software Metal\" of family Apple5"));
    CHECK(has(refusal("metal:strict"), "of family Apple5"));
    adds(*make_device({"metal:any", 1, {}}));
    CHECK(has(make_device({"metal:any:strict", 1, {}})->info().isa, "strict"));
  }
  {
    const Played played(with_family(0));
    for (const char* name : {"metal", "metal:any"})
      CHECK(has(refusal(name), "found \"AMD Radeon Pro 5500M\", which is not Apple's"));
  }
  const Played played(with_family(-1));
  CHECK(has(refusal("metal"), "found none"));
}

TEST_CASE("auto is the GPU where its family is trusted") {
  const auto chosen = [] { return make_device({"auto", 1, {}})->info().name; };
  const Played played({});
  CHECK(chosen() == "cpu");  // until somebody has seen it right
  trusted_families().insert(7);
  CHECK(chosen() == "metal");
  software_gpu::machine().family = 9;
  CHECK(chosen() == "cpu");
  software_gpu::machine().family = 0;
  CHECK(chosen() == "cpu");
  trusted_families().erase(7);
}

TEST_CASE("every system from macOS 14 on compiles the kernels and keeps memory resident") {
  for (const int macos : {14, 15, 26}) {
    Machine mac;
    mac.macos = macos;
    const Played played(mac);
    adds(*make_device({"metal", 1, {}}));
  }
}

TEST_CASE("kernels are compiled a format at a time") {
  const Played played({});
  software_gpu::compiled.clear();
  const auto device = make_device({"metal", 1, {}});
  adds(*device);
  adds(*device);
  CHECK(software_gpu::compiled == std::vector<std::string>{"rest"});
  embeds_halves(*device);
  CHECK(software_gpu::compiled == std::vector<std::string>{"rest", "f16"});
}

TEST_CASE("a library that was built beforehand spares the compiling, and one that is damaged does not") {
  const fs::path path = fs::temp_directory_path() / ("foundry_library_" + std::to_string(::getpid()));
  const Played played({});
  for (const char* content : {software_gpu::kLibraryLine, "damaged"}) {
    std::ofstream(path) << content;
    DeviceOptions options;
    options.name = "metal", options.kernel_library = path.string();
    software_gpu::compiled.clear();
    const auto device = make_device(options);
    adds(*device);
    embeds_halves(*device);
    CHECK(software_gpu::compiled.empty() == (content == software_gpu::kLibraryLine));
  }
  fs::remove(path);
}

TEST_CASE("without a residency set each encoder is told of the buffers") {
  const Played played({}, "residency set");
  adds(*make_device({"metal", 1, {}}));
}

TEST_CASE("memory is asked for again while the device is in use, and no longer") {
  const Played played({});
  const auto device = make_device({"metal", 1, {}});
  adds(*device);
  const uint64_t before = software_gpu::residency_requests;
  CHECK(eventually([&] { return software_gpu::residency_requests > before; }));
  std::atomic<int> asked = 0;
  KeepAlive brief([&] { ++asked; }, {std::chrono::milliseconds(1), std::chrono::milliseconds(30)});
  for (int again = 0; again < 2; ++again) {
    const int until_now = asked;
    brief.touch();
    CHECK(eventually([&] { return asked > until_now; }));
    CHECK(eventually([&] {  // it rests
      const int now = asked;
      std::this_thread::sleep_for(std::chrono::milliseconds(60));
      return asked == now;
    }));
  }
}

TEST_CASE("memory that goes is given back at once, not with the next step") {
  const Played played({});
  const auto device = make_device({"metal", 1, {}});
  const uint64_t before = software_gpu::allocated_bytes();
  {
    const auto large = device->allocate(1 << 20, MemoryKind::device);
    adds(*device);  // it is resident
    CHECK(software_gpu::allocated_bytes() >= before + (1 << 20));
  }
  CHECK(software_gpu::allocated_bytes() == before);
}

TEST_CASE("a step that would keep an M1 for long is cut into command buffers") {
  constexpr uint32_t kRows = 512, kIn = 4096, kOut = 8192, kLinears = 20;
  const Played played({});
  software_gpu::only_timed = true;
  const auto device = make_device({"metal", 1, {}});
  const std::vector<std::byte> bytes(uint64_t{kOut} * kIn / 32 * 18);
  const auto weight =
      device->prepare({"weight", DType::q4_0, kOut, kIn, bytes.data(), bytes.size()}, WeightUse::linear);
  const auto in = device->allocate(uint64_t{kRows} * kIn * 4, MemoryKind::device);
  const auto out = device->allocate(uint64_t{kRows} * kOut * 4, MemoryKind::device);
  Guarded scratch(*device, 1 << 20);
  const uint64_t before = software_gpu::totals().passes;
  for (uint32_t rows : {1u, kRows}) {
    device->begin(scratch.span(), plain_shape(rows, kIn));
    for (uint32_t i = 0; i < kLinears; ++i) {
      LinearArgs args;
      args.in = {in.get(), 0};
      args.outputs = {{{rows, kIn, kOut}, weight.get(), nullptr, {out.get(), 0}}};
      device->linear(args);
    }
    device->wait(device->submit());  // it is an error where it takes too long
    if (rows == 1) CHECK(software_gpu::totals().passes == before + 1);
  }
  const uint64_t passes = software_gpu::totals().passes - before - 1;
  CHECK(passes > 4);
  CHECK(passes <= kLinears);
}

TEST_CASE("a long step that is dropped half way harms none") {
  constexpr uint32_t kRows = 64, kWidth = 65536, kAdds = 720;  // more than a second of an M1
  const Played played({});
  const auto device = make_device({"metal", 1, {}});
  software_gpu::only_timed = true;
  const auto big = device->allocate(uint64_t{kRows} * kWidth * sizeof(float), MemoryKind::device);
  const auto scratch = device->allocate(1024, MemoryKind::device);
  const Span all{big.get(), 0};
  const uint64_t before = software_gpu::totals().passes;
  for (const bool submitted : {false, true}) {
    device->begin({scratch.get(), 0}, plain_shape(kRows, kWidth));
    for (uint32_t i = 0; i < kAdds; ++i) device->add({kRows, kWidth, all, all, all});
    if (submitted) device->wait(device->submit());
  }
  CHECK(software_gpu::totals().passes - before > 10);
  software_gpu::only_timed = false;
  adds(*device);
}

TEST_CASE("after an error the queue is made anew, and where that fails too the error says to restart") {
  const Played played({}, "page fault");
  const auto device = make_device({"metal", 1, {}});
  const auto scratch = device->allocate(1024, MemoryKind::device);
  const std::vector<float> ones(8, 1.0f);
  const Guarded a(*device, ones);
  const auto step = [&] {
    device->begin({scratch.get(), 0}, plain_shape(1, 8));
    device->add({1, 8, a.span(), a.span(), a.span()});
    return device->submit();
  };
  CHECK_THROWS_AS(device->wait(step()), ConsistencyError);
  adds(*device);  // a queue that had an error takes nothing more: this is another
  software_gpu::fault = "page fault";
  const uint64_t failed = step(), behind = step();  // two under way
  CHECK_THROWS_AS(device->wait(behind), ConsistencyError);
  CHECK_THROWS_AS(device->wait(failed), ConsistencyError);
  adds(*device);
  software_gpu::fault = "memory";
  CHECK_THROWS_AS(device->wait(step()), MemoryLimitError);
  adds(*device);
  software_gpu::fault = "dead";
  CHECK_THROWS_AS(device->wait(step()), ConsistencyError);
  for (int again = 0; again < 2; ++again) try {
      device->wait(step());
      CHECK_MESSAGE(false, "a dead GPU computed");
    } catch (const IoError& error) {
      CHECK(has(error.what(), "restart the process"));
    }
  software_gpu::fault.clear();
  adds(*device);  // it has come back
}

TEST_CASE("archives of pipelines are named by the system's build, written aside, and go when they are old") {
  const fs::path folder = fs::temp_directory_path() / ("foundry_archives_" + std::to_string(::getpid()));
  const auto files = [&] {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
    return names;
  };
  const auto run = [&](const std::string& build) {
    Machine mac;
    mac.build = build;
    const Played played(mac);
    const auto device = make_device({"metal", 1, folder.string()});
    CHECK(device->info().system == build);
    adds(*device);
  };
  software_gpu::archives_written.clear();
  run("24A1");
  run("24B2");
  CHECK(files().size() == 2);
  CHECK((has(files()[0], "24A1") != has(files()[1], "24A1")));
  REQUIRE(software_gpu::archives_written.size() == 2);
  CHECK(software_gpu::archives_written[0] != software_gpu::archives_written[1]);
  for (const std::string& name : files()) {
    const auto age = std::chrono::hours(24 * (has(name, "24A1") ? 30 : 1));
    fs::last_write_time(folder / name, fs::file_time_type::clock::now() - age);
  }
  std::ofstream(folder / "another's") << "stays";
  fs::last_write_time(folder / "another's", fs::file_time_type::clock::now() - std::chrono::hours(24 * 90));
  run("24C3");
  CHECK(files().size() == 3);
  for (const std::string& name : files()) CHECK(!has(name, "24A1"));
  // Two that save the same kernels never write one file.
  software_gpu::archives_written.clear();
  fs::remove_all(folder);
  fs::create_directory(folder);
  {
    const auto one = make_device({"metal", 1, folder.string()}), two = make_device({"metal", 1, folder.string()});
    adds(*one);
    adds(*two);
  }
  REQUIRE(software_gpu::archives_written.size() == 2);
  CHECK(software_gpu::archives_written[0] != software_gpu::archives_written[1]);
  CHECK(files().size() == 1);
  fs::remove_all(folder);
}

}  // namespace foundry::kernel_tests
