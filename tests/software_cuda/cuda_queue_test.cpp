// What the queue of the CUDA device asks of the driver, as the software driver counts it, and when.
#include <doctest/doctest.h>

#include <cstring>
#include <thread>
#include <vector>

#include "base/error.h"
#include "device/device.h"
#include "software_cuda/machine.h"

namespace foundry {
namespace {

std::unique_ptr<Device> cuda() { return make_device({"cuda", 1, {}, {}, {}}); }
uint64_t count(const char* function) { return software_cuda_counts()[function]; }

/// out = a + b, of n values each.
struct Sum {
  static constexpr uint32_t kValues = 1000;
  explicit Sum(Device& device) : device(device) {
    for (auto* one : {&a, &b, &out}) *one = device.allocate(kValues * sizeof(float), MemoryKind::device);
    const std::vector<float> ones(kValues, 1.0f), twos(kValues, 2.0f);
    device.upload({a.get(), 0}, std::as_bytes(std::span(ones)));
    device.upload({b.get(), 0}, std::as_bytes(std::span(twos)));
  }
  void encode() { device.add({1, kValues, {a.get(), 0}, {b.get(), 0}, {out.get(), 0}}); }
  uint64_t step() {
    device.begin({}, {});
    encode();
    return device.submit();
  }
  float first(const std::unique_ptr<Buffer>& of) {
    float value = 0;
    device.download({of.get(), 0}, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  Device& device;
  std::unique_ptr<Buffer> a, b, out;
};

TEST_CASE("steps run behind the host, in order, and are waited for by number") {
  const auto device = cuda();
  Sum sum(*device);
  const uint64_t ran = count("launches");
  std::vector<uint64_t> steps;
  for (int i = 0; i < 3; ++i) {
    steps.push_back(sum.step());
    std::swap(sum.a, sum.out);  // the next adds to what this one gives: 3, 5, 7
  }
  CHECK(steps == std::vector<uint64_t>{steps[0], steps[0] + 1, steps[0] + 2});
  CHECK(count("launches") == ran);
  device->wait(steps[0]);
  CHECK(count("launches") == ran + 1);
  device->wait(steps[2]);
  device->wait(steps[1]);
  CHECK(count("launches") == ran + 3);
  CHECK(sum.first(sum.a) == 7.0f);
}

TEST_CASE("a buffer that goes while a step is under way stays until the step has ended") {
  const auto device = cuda();
  Sum sum(*device);
  device->wait(sum.step());
  const uint64_t freed = count("cuMemFree");
  const uint64_t first = sum.step();
  sum.b.reset();
  CHECK(count("cuMemFree") == freed);
  auto shared = device->allocate(64, MemoryKind::shared);
  const uint64_t freed_host = count("cuMemFreeHost");
  shared.reset();
  CHECK(count("cuMemFreeHost") == freed_host);
  device->wait(first);
  CHECK(count("cuMemFree") == freed + 1);
  CHECK(count("cuMemFreeHost") == freed_host + 1);
  CHECK(sum.first(sum.out) == 3.0f);
}

TEST_CASE("a buffer that goes while a step is encoded stays until that step has ended, or is dropped") {
  const auto device = cuda();
  Sum sum(*device);
  device->begin({}, {});
  sum.encode();
  const uint64_t freed = count("cuMemFree"), ran = count("launches");
  sum.b.reset();
  CHECK(count("cuMemFree") == freed);
  device->begin({}, {});  // the step before is dropped
  CHECK(count("launches") == ran);
  device->wait(device->submit());
  CHECK(count("cuMemFree") == freed + 1);
}

TEST_CASE("a step that is given up runs nothing: what it was told to read may go at once") {
  const auto device = cuda();
  Sum sum(*device);
  const uint64_t ran = count("launches"), launched = count("cuLaunchKernel");
  device->begin({}, {});
  sum.encode();
  device->drop();
  device->drop();
  device->begin({}, {});
  CHECK(count("cuLaunchKernel") == launched);
  device->wait(sum.step());
  CHECK(count("launches") == ran + 1);
  CHECK(sum.first(sum.out) == 3.0f);
}

TEST_CASE("a copy begins when the steps before have ended, so that who asks for it may change tables at once") {
  const auto device = cuda();
  Sum sum(*device);
  const uint64_t ran = count("launches");
  sum.step();
  device->copy({sum.out.get(), 0}, {sum.a.get(), 0}, Sum::kValues * sizeof(float));
  CHECK(count("launches") == ran + 1);
  sum.step();
  CHECK(sum.first(sum.out) == 5.0f);
}

TEST_CASE("an upload is done on return: the host's bytes may change") {
  const auto device = cuda();
  Sum sum(*device);
  std::vector<float> values(Sum::kValues, 7.0f);
  device->upload({sum.a.get(), 0}, std::as_bytes(std::span(values)));
  std::fill(values.begin(), values.end(), 0.0f);
  device->wait(sum.step());
  CHECK(sum.first(sum.out) == 9.0f);
  const auto pinned =
      device->allocate(Sum::kValues * sizeof(float), MemoryKind::shared);  // which the card reads itself
  const std::span own(Span{pinned.get(), 0}.host<float>(), Sum::kValues);
  std::fill(own.begin(), own.end(), 5.0f);
  device->upload({sum.a.get(), 0}, std::as_bytes(own));
  std::fill(own.begin(), own.end(), 0.0f);
  device->wait(sum.step());
  CHECK(sum.first(sum.out) == 7.0f);
}

TEST_CASE("a submit that fails in the middle has ended by the time that its step is dropped") {
  const auto device = cuda();
  Sum sum(*device);
  device->wait(sum.step());
  device->begin({}, {});
  sum.encode();
  sum.encode();
  software_cuda_settings().refuse_launch_at = count("cuLaunchKernel") + 2;
  const uint64_t ran = count("launches");
  CHECK_THROWS_AS(device->submit(), ConsistencyError);
  CHECK(count("launches") == ran);
  device->drop();
  CHECK(count("launches") == ran + 1);
  software_cuda_settings().refuse_launch_at = 0;
  device->wait(sum.step());
  CHECK(sum.first(sum.out) == 3.0f);
}

TEST_CASE("a step of the same functions as one before goes as a graph, with what has changed set in it") {
  const auto device = cuda();
  Sum sum(*device), other(*device);
  constexpr uint64_t kAdds = 12;
  // Each adds to what the one before gave: 3, 5, 7, ...
  const auto step = [&](uint32_t values) {
    device->begin({}, {});
    for (uint64_t i = 0; i < kAdds; ++i)
      device->add({1, values, {(i == 0 ? sum.a : sum.out).get(), 0}, {sum.b.get(), 0}, {sum.out.get(), 0}});
    device->wait(device->submit());
    return sum.first(sum.out);
  };
  const uint64_t launched = count("cuLaunchKernel"), graphs = count("cuGraphInstantiate");
  CHECK(step(Sum::kValues) == 25.0f);
  CHECK(count("cuLaunchKernel") == launched + kAdds);
  CHECK(step(Sum::kValues) == 25.0f);
  CHECK(step(Sum::kValues) == 25.0f);
  CHECK(count("cuLaunchKernel") == launched + kAdds);
  CHECK(count("cuGraphInstantiate") == graphs + 1);
  const uint64_t set = count("cuGraphExecKernelNodeSetParams");
  std::swap(sum.a, other.b);  // twos
  CHECK(step(Sum::kValues) == 26.0f);
  CHECK(count("cuGraphInstantiate") == graphs + 1);
  CHECK(count("cuGraphExecKernelNodeSetParams") == set + 1);
  // All differ, the grid with them: one of its own, up to four.
  for (uint32_t values = 100; values <= 600; values += 100) CHECK(step(values) == 26.0f);
  CHECK(count("cuGraphInstantiate") == graphs + 4);
  CHECK(step(Sum::kValues) == 26.0f);
}

TEST_CASE("a graph that refused what was to be set in it is set the next time") {
  const auto device = cuda();
  Sum sum(*device), other(*device);
  const auto step = [&] {  // the first alone reads a
    device->begin({}, {});
    for (int i = 0; i < 12; ++i)
      device->add({1, Sum::kValues, {(i == 0 ? sum.a : sum.out).get(), 0}, {sum.b.get(), 0}, {sum.out.get(), 0}});
    device->wait(device->submit());
    return sum.first(sum.out);
  };
  for (int i = 0; i < 3; ++i) CHECK(step() == 25.0f);
  std::swap(sum.a, other.b);  // twos
  software_cuda_settings().refuse_set_at = count("cuGraphExecKernelNodeSetParams") + 1;
  CHECK_THROWS_AS(step(), ConsistencyError);
  software_cuda_settings().refuse_set_at = 0;
  device->drop();
  CHECK(step() == 26.0f);
}

TEST_CASE("a step that finds no memory for a graph goes launch by launch") {
  const auto device = cuda();
  Sum sum(*device);
  const auto step = [&] {
    device->begin({}, {});
    for (int i = 0; i < 12; ++i) sum.encode();
    device->wait(device->submit());
    return sum.first(sum.out);
  };
  step();
  software_cuda_settings().no_graph_at = count("cuGraphInstantiate") + 1;
  const uint64_t launched = count("cuLaunchKernel");
  CHECK(step() == 3.0f);
  CHECK(count("cuLaunchKernel") == launched + 12);
  software_cuda_settings().no_graph_at = 0;
  CHECK(step() == 3.0f);
  CHECK(count("cuLaunchKernel") == launched + 12);
  CHECK(count("cuGraphCreate") == count("cuGraphDestroy") + 1);
}

TEST_CASE("launches of a graph see what those before them wrote") {
  const auto device = cuda();
  Sum sum(*device), kept(*device);
  const std::vector<float> tens(Sum::kValues, 10.0f);
  for (int i = 0; i < 3; ++i) {
    device->upload({sum.out.get(), 0}, std::as_bytes(std::span(tens)));
    device->begin({}, {});
    for (int n = 0; n < 4; ++n) {
      sum.encode();  // 3
      device->scale({{Sum::kValues, 2.0f, 0.0f}, {sum.out.get(), 0}, {kept.out.get(), 0}});
      device->add({1, Sum::kValues, {kept.out.get(), 0}, {sum.out.get(), 0}, {kept.a.get(), 0}});
    }
    device->wait(device->submit());
    CHECK(sum.first(kept.a) == 9.0f);
  }
}

TEST_CASE("what the host has written to mirrored memory is the card's from the next step on, and no sooner") {
  const auto device = cuda();
  Sum sum(*device);
  const auto inputs = device->allocate(Sum::kValues * sizeof(float), MemoryKind::mirrored);
  const std::span own(Span{inputs.get(), 0}.host<float>(), Sum::kValues);
  const auto step = [&] {
    device->begin({}, {});
    device->add({1, Sum::kValues, {inputs.get(), 0}, {sum.b.get(), 0}, {sum.out.get(), 0}});
    return device->submit();
  };
  std::fill(own.begin(), own.end(), 40.0f);
  inputs->wrote(0, inputs->bytes());
  const uint64_t first = step();
  device->wait(first);
  CHECK(sum.first(sum.out) == 42.0f);
  own[0] = 50.0f;
  device->wait(step());
  CHECK(sum.first(sum.out) == 42.0f);
  inputs->wrote(0, sizeof(float));
  const uint64_t copied = count("cuMemcpyHtoD");
  device->wait(step());
  CHECK(count("cuMemcpyHtoD") == copied + 1);
  CHECK(sum.first(sum.out) == 52.0f);
  auto gone = device->allocate(64, MemoryKind::mirrored);
  gone->wrote(0, 64);
  gone.reset();
  device->wait(step());
  CHECK(count("cuMemcpyHtoD") == copied + 1);
}

TEST_CASE("what launches are told by pointer is copied once a step, whatever was told twice") {
  const auto device = cuda();
  constexpr uint32_t kVocab = 300;
  const auto logits = device->allocate(kVocab * sizeof(float), MemoryKind::device);
  const auto out = device->allocate(4 * sizeof(int32_t), MemoryKind::shared);
  std::vector<float> row(kVocab, 0.0f);
  row[17] = 9.0f, row[20] = 8.0f;
  device->upload({logits.get(), 0}, std::as_bytes(std::span(row)));
  SampleParams params{0.0f, 0, 1.0f, 0.0f, 0.5f};
  const auto sample = [&](uint64_t at) {
    device->sample({1, kVocab, &params, {logits.get(), 0}, {out.get(), at * sizeof(int32_t)}});
  };
  device->begin({}, {});
  const uint64_t copied = count("cuMemcpyHtoD");
  sample(0);
  sample(1);
  params.temperature = 100.0f, params.min_p = 0.0f, params.uniform = 0.9999f;  // the last ids
  sample(2);
  params.temperature = 0.0f;
  CHECK(count("cuMemcpyHtoD") == copied);
  const uint64_t step = device->submit();
  CHECK(count("cuMemcpyHtoD") == copied + 1);
  device->begin({}, {});
  sample(3);
  device->wait(step);
  device->wait(device->submit());
  CHECK(count("cuMemcpyHtoD") == copied + 2);  // the next step may be told otherwise
  const Span drawn{out.get(), 0};
  CHECK(drawn.host<int32_t>()[0] == 17);
  CHECK(drawn.host<int32_t>()[1] == 17);
  CHECK(drawn.host<int32_t>()[2] > 290);
  CHECK(drawn.host<int32_t>()[3] == 17);
}

TEST_CASE("any thread may call, with a context of its own or none") {
  const auto device = cuda();
  Sum sum(*device);
  float found = 0;
  std::thread([&] {
    device->wait(sum.step());
    found = sum.first(sum.out);
    device->allocate(10, MemoryKind::device).reset();
  }).join();
  CHECK(found == 3.0f);
}

TEST_CASE("everything is given back") {
  const uint64_t allocated = count("cuMemAlloc") - count("cuMemFree");
  const uint64_t pinned = count("cuMemHostAlloc") - count("cuMemFreeHost");
  {
    const auto device = cuda();
    Sum sum(*device);
    sum.step();
    device->begin({}, {});
    sum.encode();
  }
  CHECK(count("cuMemAlloc") - count("cuMemFree") == allocated);
  CHECK(count("cuMemHostAlloc") - count("cuMemFreeHost") == pinned);
  CHECK(count("cuStreamCreate") == count("cuStreamDestroy"));
  CHECK(count("cuEventCreate") == count("cuEventDestroy"));
}

TEST_CASE("more than the card has is told with what it has, and the next allocation goes on") {
  const auto device = cuda();
  software_cuda_settings().no_memory_at = count("cuMemAlloc") + 1;
  try {
    device->allocate(12345, MemoryKind::device);
    FAIL("expected a MemoryLimitError");
  } catch (const MemoryLimitError& error) {
    CHECK(error.needed_bytes == 12345);
    CHECK(error.available_bytes > 1000000);
  }
  CHECK(device->allocate(12345, MemoryKind::device) != nullptr);
}

}  // namespace
}  // namespace foundry
