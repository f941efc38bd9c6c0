// What a device's memory promises (device/memory.h), on every device there is; and that the shadow device, on which the
// engine's tests run once more, notices who looks where the host has no business.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "base/error.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/session.h"
#include "shadow/shadow_device.h"

namespace foundry {
namespace {

using Floats = std::vector<float>;

std::vector<std::unique_ptr<Device>> devices() {
  std::vector<std::unique_ptr<Device>> all;
  for (const std::string& name : test::devices()) all.push_back(make_device({name, 1, {}}));
  all.push_back(test::make_shadow_device({"", 1, {}}));
  return all;
}

struct Array {
  Array(Device& device, uint64_t n)
      : of(device), buffer(device.allocate(n * sizeof(float), MemoryKind::device)), n(n) {}
  Array(Device& device, const Floats& values) : Array(device, values.size()) { write(values); }
  void write(const Floats& values) const { of.upload(span(), std::as_bytes(std::span(values))); }
  Floats read() const {
    Floats values(n);
    of.download(span(), std::as_writable_bytes(std::span(values)));
    return values;
  }
  Span span() const { return {buffer.get(), 0}; }
  Device& of;
  std::unique_ptr<Buffer> buffer;
  uint64_t n;
};

/// The signal that a child of this process ends by when it does so; 0: it comes to its end.
int ends_by(const std::function<void()>& look) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);  // a sanitizer's would tell of it and leave
    signal(SIGBUS, SIG_DFL);
    look();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

bool forbidden(int ended_by) { return ended_by == SIGSEGV || ended_by == SIGBUS; }

/// Reads a byte, in a way that no compiler leaves out.
void look_at(const std::byte* at) {
  const std::byte seen = *static_cast<const volatile std::byte*>(at);
  static_cast<void>(seen);
}

}  // namespace

TEST_CASE("memory: the host has a pointer to what is shared, and none to what is the device's") {
  for (const auto& device : devices()) {
    CAPTURE(device->info().name);
    const auto own = device->allocate(64, MemoryKind::device), shared = device->allocate(64, MemoryKind::shared);
    CHECK((own->host() == nullptr && own->bytes() == 64));
    REQUIRE(shared->host() != nullptr);
    std::memset(shared->host(), 7, 64);
    CHECK(Span{shared.get(), 63}.host<char>()[0] == 7);
    CHECK(device->room_bytes(100) == (device->unified() ? 0 : 100));
  }
}

TEST_CASE("memory: what goes up comes down, in part too, and a copy is of its own") {
  for (const auto& device : devices()) {
    CAPTURE(device->info().name);
    const Array a(*device, Floats{1, 2, 3, 4}), b(*device, Floats{5, 6, 7, 8});
    device->copy({a.buffer.get(), 4}, {b.buffer.get(), 8}, 8);
    CHECK(b.read() == Floats{5, 6, 2, 3});
    a.write({9, 9, 9, 9});
    CHECK((b.read() == Floats{5, 6, 2, 3} && a.read() == Floats{9, 9, 9, 9}));
    const Room room(*device, 8);
    std::byte* window = device->window({b.buffer.get(), 8}, room.span());
    device->download({b.buffer.get(), 8}, {window, 8});
    CHECK((reinterpret_cast<float*>(window)[0] == 2 && reinterpret_cast<float*>(window)[1] == 3));
    reinterpret_cast<float*>(window)[1] = 10;
    device->upload({b.buffer.get(), 8}, {window, 8});
    CHECK(b.read() == Floats{5, 6, 2, 10});
    if (!device->unified()) CHECK_THROWS_AS(device->window(b.span(), {}), ConsistencyError);
  }
}

TEST_CASE("memory: copies see what the steps before them wrote, and steps see what copies brought") {
  for (const auto& device : devices()) {
    CAPTURE(device->info().name);
    const Array a(*device, Floats{1, 2}), b(*device, Floats{10, 20}), sum(*device, 2), copy(*device, 2);
    const StepShape shape{1, 2, 1, 1, 1, 8};
    const auto scratch = device->allocate(device->scratch_bytes(shape), MemoryKind::device);
    const auto add = [&] {
      device->begin({scratch.get(), 0}, shape);
      device->add({1, 2, a.span(), b.span(), sum.span()});
      return device->submit();
    };
    add();
    device->copy(sum.span(), copy.span(), 8);  // nobody has waited
    CHECK(copy.read() == Floats{11, 22});
    add();
    a.write({5, 6});  // behind the step, which read what was there before
    CHECK(sum.read() == Floats{11, 22});
    const uint64_t last = add();
    device->wait(last);
    CHECK((sum.read() == Floats{15, 26} && copy.read() == Floats{11, 22}));
    add();
    const Floats none{0, 0};
    sum.write(none);
    CHECK(sum.read() == none);  // and not the step's
  }
}

TEST_CASE("shadow: who looks at pages, weights or activations on the host ends; who asks for a copy does not") {
  const auto device = test::make_shadow_device({"", 1, {}});
  const KvGeometry geometry{2, 2, 8, 0, 0, 8, 8};
  MemoryLedger ledger(UINT64_MAX);
  PagePool pool(*device, ledger, geometry, 2);
  const PageId page = pool.acquire(1).front();
  const auto* at = reinterpret_cast<const std::byte*>(pool.address(page));
  CHECK(forbidden(ends_by([&] { look_at(at); })));
  CHECK(forbidden(ends_by([&] { *const_cast<std::byte*>(at) = std::byte{1}; })));
  std::vector<std::byte> bytes(geometry.page_bytes());
  CHECK(ends_by([&] {
          device->download(pool.span(page), bytes);
          look_at(bytes.data());
        }) == 0);
  CHECK_THROWS_AS(device->download(pool.span(page), {const_cast<std::byte*>(at), 1}), ConsistencyError);
  CHECK_THROWS_AS(device->upload(pool.span(page), {at, 1}), ConsistencyError);
  pool.release(page);

  const Floats values{1, 2, 3, 4, 5, 6, 7, 8};
  WeightView view;
  view.name = "w", view.type = DType::f32, view.rows = 1, view.cols = 8;
  view.data = reinterpret_cast<const std::byte*>(values.data()), view.bytes = sizeof(float) * values.size();
  const auto weight = device->prepare(view, WeightUse::table);
  CHECK(weight->private_bytes == device->prepared_bytes(view, WeightUse::table));
  CHECK(forbidden(ends_by([&] { look_at(weight->mapped); })));

  const auto table = PageTable(pool).pool().allocate_table(8);  // tables are the host's to write
  CHECK(ends_by([&] { look_at(table->host()); }) == 0);
}

TEST_CASE("shadow: the same bits as the processor's, over a fork, a rewind and a restore") {
  const Graph graph = test::tiny_graph({});
  const test::TinyFile file(graph);
  const std::string path = "/tmp/foundry-shadow-" + std::to_string(getpid()) + ".kv";
  test::register_shadow_devices();
  std::vector<Floats> given;
  for (const char* name : {"cpu", "shadow", "shadow:ahead"}) {
    ModelOptions options;
    options.device = {name, 1, {}};
    options.page_tokens = 8, options.slab_pages = 2, options.chunk_tokens = 16, options.check_every_step = true;
    const auto model = CompiledModel::load(file.open(), graph, options, {});
    Floats& logits = given.emplace_back();
    const auto feed = [&](Session& s, const std::vector<int32_t>& tokens) {
      s.forward(
          tokens, LogitsOf::all,
          [&](size_t, size_t, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); }, {});
    };
    const auto session = Session::open(model, {});
    feed(*session, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4});
    const auto fork = session->fork({});
    feed(*fork, {6, 2});
    feed(*session, {6, 4, 3});
    session->save(path, {});
    const auto restored = Session::restore(model, path, 10, 0);
    feed(*restored, {3, 8});
    restored->rewind(20, {});
    feed(*restored, {2, 7});
    const auto answer = restored->generate(std::vector<int32_t>{9}, {12, {}, {}}, {});
    for (auto next = answer->next({}); next.finish == Finish::none; next = answer->next({}))
      logits.push_back(static_cast<float>(next.token));
    unlink(path.c_str());
  }
  CHECK((given[0] == given[1] && given[0] == given[2]));
  CHECK(given[0].size() > 29 * 96);
}

}  // namespace foundry
