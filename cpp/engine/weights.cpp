#include "engine/weights.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "base/system_page.h"
#include "formats/block_formats.h"
#include "formats/table.h"

namespace foundry {
namespace {

/// As the op wants it or as the file has it; of experts (0: none) with their number first.
std::string shape(uint64_t experts, uint64_t rows, uint64_t cols) {
  const std::string first = experts == 0 ? "" : std::to_string(experts) + ", ";
  return "[" + first + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

WeightUse use_of(const Op& op, size_t index) {
  return (op.is<LinearOp>() || op.is<LinearRoutedOp>()) && index == 0 ? WeightUse::linear
                                                                      : WeightUse::table;  // a bias is read as a vector
}

}  // namespace

WeightStore::WeightStore(std::shared_ptr<WeightSource> file, const Graph& graph) : file_(std::move(file)) {
  for (const Op& op : graph.ops) {
    for (size_t i = 0; i < op.weights.size(); ++i) {
      const WeightId id = op.weights[i];
      if (id == kNone) continue;
      const WeightUse use = use_of(op, i);
      if (entries_.count({id, use}) != 0) continue;
      const WeightRef& ref = graph.weights.at(static_cast<size_t>(id));
      Entry& entry = entries_.emplace(std::make_pair(id, use), find(op, ref, use)).first->second;
      entry.routed = op.is<LinearRoutedOp>() && use == WeightUse::linear;
      if (!entry.routed) continue;
      most_experts_ = std::max(most_experts_, entry.view.matrices);
      entry.view.told = [file = file_.get()](const std::byte* data, uint64_t bytes, Need need) {
        file->advise(data, bytes, need);
      };
    }
  }
  set_kept(most_experts_);
}

void WeightStore::set_kept(uint64_t kept) {
  experts_kept_ = kept;
  for (auto& [key, entry] : entries_)
    if (entry.routed) entry.view.kept = std::min(kept, entry.view.matrices);
}

uint64_t WeightStore::experts_bytes(const Device& device) const {
  uint64_t bytes = 0;
  for (const auto& [key, entry] : entries_)
    if (entry.routed) bytes += device.prepared_bytes(entry.view, entry.use);
  return bytes;
}

bool WeightStore::keep_experts(const Device& device, uint64_t bytes, uint64_t* needed) {
  uint64_t fits = 0;
  for (uint64_t low = 1, high = most_experts_; low <= high;) {
    const uint64_t middle = low + (high - low) / 2;
    set_kept(middle);
    if (experts_bytes(device) <= bytes)
      fits = middle, low = middle + 1;
    else
      high = middle - 1;
  }
  set_kept(std::max<uint64_t>(fits, most_experts_ == 0 ? 0 : 1));
  if (fits == 0 && needed != nullptr) *needed = experts_bytes(device);
  return fits != 0 || most_experts_ == 0;
}

WeightStore::Entry WeightStore::find(const Op& op, const WeightRef& ref, WeightUse use) const {
  if (!ref.constant.empty()) {
    Entry entry{};
    entry.use = use, entry.own = ref.constant, entry.view.name = ref.name;
    entry.show_own();
    return entry;
  }
  const uint64_t whole_rows = ref.whole != 0 && ref.rows != 1 ? ref.whole : ref.rows;
  const uint64_t whole_cols = ref.whole != 0 && ref.rows == 1 ? ref.whole : ref.cols;
  if (!file_->has(ref.name))
    throw ModelFormatError(op.name + ": the file has no tensor \"" + ref.name + "\"; expected " +
                           shape(ref.experts, whole_rows, whole_cols));
  WeightView view = file_->view(ref.name);
  const uint64_t matrices = std::max<uint64_t>(ref.experts, 1);
  if (ref.experts == 0) view.matrices = 1;  // more dimensions are more rows
  if (ref.experts != 0 && ref.rows == 1 && view.matrices == 1) view.matrices = view.rows;  // a vector each is a row
  if (view.matrices != matrices || view.rows != matrices * whole_rows || view.cols != whole_cols)
    throw ModelFormatError(op.name + ": tensor \"" + ref.name + "\": expected " +
                           shape(ref.experts, whole_rows, whole_cols) + ", found " +
                           shape(ref.experts == 0 ? 0 : view.matrices, view.rows / view.matrices, view.cols));
  const bool vector = use == WeightUse::table && !op.is<EmbedOp>();
  const bool plain = view.type == DType::f32 || view.type == DType::f16 || view.type == DType::bf16;
  if (vector && !plain)
    throw ModelFormatError(op.name + ": tensor \"" + ref.name + "\": expected f32, f16 or bf16, found " +
                           dtype_name(view.type));
  if (!vector && (view.plus != 0 || view.minus_exp))
    throw ConsistencyError(op.name + ": a matrix with something done to its values");
  if (ref.whole != 0) {
    if (view.made != nullptr) throw ConsistencyError(op.name + ": a part of a weight that is made of others");
    const bool row_part = ref.rows != 1;
    const uint64_t each = row_part ? view.bytes / view.rows : block_bytes(view.type);
    if (!row_part && !plain)
      throw ModelFormatError(op.name + ": tensor \"" + ref.name + "\": a part of a row that is in blocks");
    if (view.data != nullptr) view.data += ref.first * each;  // null: the file's header alone was read
    view.offset += ref.first * each;
    view.rows = ref.rows, view.cols = ref.cols;
    view.bytes = (row_part ? ref.rows : ref.cols) * each;
  }
  const bool as_it_lies = view.type == DType::f32 && view.plus == 0 && !view.minus_exp && view.made == nullptr;
  if (!vector || as_it_lies) return {std::move(view), use};
  Entry entry{};
  entry.use = use, entry.own.resize(view.rows * view.cols), entry.view.name = view.name;
  entry.of_file = std::move(view);
  entry.show_own();
  return entry;
}

void WeightStore::Entry::read_own() {
  std::vector<std::byte> room(of_file.made == nullptr ? 0 : of_file.bytes);
  dequantise_row(of_file.type, of_file.at(0, of_file.rows, room.data()), own.data(), own.size());
  for (float& value : own) value = of_file.minus_exp ? -std::exp(value) : value + of_file.plus;
}

void WeightStore::PagesGo::operator()(std::byte* pages) const {
  ::operator delete(pages, std::align_val_t{system_page()});
}

std::unique_ptr<Weight> WeightStore::Entry::prepared(Device& device) {
  if (view.made == nullptr || (device.info().makes_rows && device.prepared_bytes(view, use) != 0))
    return device.prepare(view, use);
  // As a map of a file would lie: from a page's beginning, in whole pages.
  const auto page = std::align_val_t{system_page()};
  copy.reset(static_cast<std::byte*>(::operator new(round_up(view.bytes, system_page()), page)));
  WeightView made = view;
  made.data = made.at(0, made.rows, copy.get()), made.made = nullptr;
  auto weight = device.prepare(made, use);
  if (weight->private_bytes == 0) return weight;
  weight->mapped = nullptr;
  copy.reset();
  return weight;
}

void WeightStore::Entry::show_own() {
  view.type = DType::f32, view.rows = 1, view.cols = own.size(), view.bytes = own_bytes();
  view.data = reinterpret_cast<const std::byte*>(own.data());  // moving a vector leaves its values where they are
}

WeightStore::~WeightStore() {
  entries_.clear();
  if (ledger_ != nullptr) {
    ledger_->credit(MemoryUse::weights_mapped, charged_.mapped);
    ledger_->credit(MemoryUse::weights_private, charged_.private_);
  }
}

WeightBytes WeightStore::plan(const Device& device) const {
  WeightBytes bytes;
  for (const auto& [key, entry] : entries_) {
    const auto use = entry.use == WeightUse::linear ? &Format::linear : &Format::table;
    check_readable(format_of(entry.view.type), use, device.info().gpu, "tensor \"" + entry.view.name + "\"");
    const uint64_t copy = device.prepared_bytes(entry.view, entry.use);
    bytes.private_ += copy + entry.own_bytes();
    if (copy != 0 || !entry.own.empty()) continue;
    (entry.view.made == nullptr ? bytes.mapped : bytes.private_) += entry.view.bytes;
  }
  return bytes;
}

void WeightStore::load(Device& device, MemoryLedger& ledger, const LoadProgress& progress) {
  for (const auto& [key, entry] : entries_)
    if (!entry.view.whole() || (entry.of_file.cols != 0 && !entry.of_file.whole()))
      throw ValueError("weights: expected a whole file, found its header alone");
  const WeightBytes planned = plan(device);
  ledger.charge(MemoryUse::weights_mapped, planned.mapped);
  try {
    ledger.charge(MemoryUse::weights_private, planned.private_);
  } catch (...) {
    ledger.credit(MemoryUse::weights_mapped, planned.mapped);
    throw;
  }
  ledger_ = &ledger;
  charged_ = planned;

  uint64_t total = 0, done = 0, held = 0;
  for (const auto& [key, entry] : entries_) total += entry.view.bytes;
  for (auto& [key, entry] : entries_) {
    if (entry.of_file.cols != 0) entry.read_own();
    entry.weight = entry.prepared(device);
    held += entry.weight->private_bytes + entry.own_bytes() + (entry.copy == nullptr ? 0 : entry.view.bytes);
    if (entry.view.made != nullptr)
      entry.view.made->advise(0, entry.view.rows, Need::not_now);
    else if (entry.weight->private_bytes != 0 && entry.own.empty())
      file_->advise(entry.view.data, entry.view.bytes, Need::not_now);
    done += entry.view.bytes;
    if (progress) progress(static_cast<double>(done) / static_cast<double>(total));
  }
  if (held != planned.private_)
    throw ConsistencyError("private weights: planned " + std::to_string(planned.private_) + " bytes, prepared " +
                           std::to_string(held));
}

const Weight* WeightStore::get(WeightId id, WeightUse use) const {
  if (id == kNone) return nullptr;
  return entries_.at({id, use}).weight.get();
}

}  // namespace foundry
