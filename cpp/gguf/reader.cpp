// Header, tensor table and data section of a GGUF file; its layout stands in gguf.h.
#include <algorithm>
#include <exception>
#include <numeric>
#include <optional>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "files/fingerprint.h"
#include "gguf/gguf.h"
#include "gguf/metadata.h"
#include "gguf/tensor_types.h"

namespace foundry {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kDefaultAlignment = 32;
constexpr uint32_t kMinAlignment = 8;         // the specification's; every element of a tensor is aligned then
constexpr uint64_t kMaxTensorNameBytes = 64;  // the specification's limit
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kHeaderBytes = uint64_t{64}
                                  << 20;  // mapped for a header, to begin with; known ones have less than 20 MB
/// The smallest entry of the table: a name of one byte, one dimension.
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

uint32_t read_version(Cursor& cursor) {
  const uint32_t magic = cursor.read<uint32_t>("magic");
  if (magic != kMagic)
    cursor.fail(0, "magic", "\"GGUF\"", quoted({reinterpret_cast<const char*>(&magic), sizeof(magic)}));
  const uint64_t at = cursor.offset();
  const uint32_t version = cursor.read<uint32_t>("version");
  if ((version & 0xffffu) == 0) cursor.fail(at, "version", "2 or 3, little endian", "a big-endian file or version 0");
  if (version != 2 && version != 3) cursor.fail(at, "version", "2 or 3", std::to_string(version));
  return version;
}

uint32_t alignment_of(const Cursor& cursor, const std::map<std::string, MetaValue>& metadata,
                      const std::map<std::string, uint64_t>& offsets) {
  const char* key = "general.alignment";
  const auto entry = metadata.find(key);
  if (entry == metadata.end()) return kDefaultAlignment;
  const uint64_t at = offsets.at(key);
  const uint32_t* value = std::get_if<uint32_t>(&entry->second);
  if (value == nullptr) cursor.fail(at, key, "u32", meta_type_name(entry->second));
  if (*value < kMinAlignment || (*value & (*value - 1)) != 0)
    cursor.fail(at, key, "a power of two, " + std::to_string(kMinAlignment) + " or more", std::to_string(*value));
  return *value;
}

/// Multiplies the dimensions out, with the type's blocks, to elements and bytes.
void measure(const Cursor& cursor, uint64_t at, const TensorType& type, GgufTensor& tensor) {
  std::optional<uint64_t> rows = 1;
  for (size_t i = 1; i < tensor.shape.size() && rows; ++i) rows = checked_mul(*rows, tensor.shape[i]);
  const uint64_t cols = tensor.shape[0];
  if (cols % type.block_elements != 0)
    cursor.fail(at, "first dimension",
                "a multiple of " + std::to_string(type.block_elements) + ", the block of " + type.name,
                std::to_string(cols));
  const auto row = checked_mul(cols / type.block_elements, type.block_bytes);
  const auto elements = rows ? checked_mul(*rows, cols) : std::nullopt;
  const auto bytes = rows && row ? checked_mul(*rows, *row) : std::nullopt;
  if (!elements || !bytes) cursor.fail(at, "dimensions", "a tensor of less than 2^64 elements and bytes", "more");
  tensor.n_elements = *elements;
  tensor.bytes = *bytes;
}

/// Reads one entry; offset is left relative to the data section, whose begin is not known yet.
GgufTensor read_tensor(Cursor& cursor, uint64_t index, uint64_t n_tensors) {
  GgufTensor tensor;
  cursor.set_place("tensor " + std::to_string(index) + " of " + std::to_string(n_tensors));
  uint64_t at = cursor.offset();
  tensor.name = cursor.read_string("name", kMaxTensorNameBytes);
  if (tensor.name.empty()) cursor.fail(at, "name", "at least 1 byte", "an empty name");
  if (!is_utf8(tensor.name)) cursor.fail(at, "name", "UTF-8", quoted(tensor.name));
  cursor.set_place("tensor " + quoted(tensor.name));

  at = cursor.offset();
  const uint32_t n_dims = cursor.read<uint32_t>("number of dimensions");
  if (n_dims < 1 || n_dims > kMaxDims)
    cursor.fail(at, "number of dimensions", "1 to " + std::to_string(kMaxDims), std::to_string(n_dims));
  const uint64_t dims_at = cursor.offset();
  for (uint32_t i = 0; i < n_dims; ++i) {
    at = cursor.offset();
    tensor.shape.push_back(cursor.read<uint64_t>("dimension"));
    if (tensor.shape.back() == 0) cursor.fail(at, "dimension " + std::to_string(i), "1 or more", "0");
  }
  at = cursor.offset();
  tensor.type = cursor.read<uint32_t>("type");
  const TensorType* type = find_tensor_type(tensor.type);
  if (type == nullptr)
    cursor.fail(at, "type", "a known type (supported: " + supported_tensor_types() + ")",
                "number " + std::to_string(tensor.type));
  tensor.type_name = type->name;
  tensor.supported = type->supported;
  measure(cursor, dims_at, *type, tensor);
  tensor.offset = cursor.read<uint64_t>("offset");
  return tensor;
}

}  // namespace

GgufFile::GgufFile(std::span<const std::byte> bytes, uint64_t file_bytes, std::string source,
                   std::unique_ptr<MappedFile> file)
    : source_(std::move(source)), file_(std::move(file)), bytes_(bytes), file_bytes_(file_bytes) {
  Cursor cursor(bytes_, source_);
  version_ = read_version(cursor);
  const uint64_t n_tensors = cursor.read_count("number of tensors", kMinTensorBytes);
  const uint64_t n_keys = cursor.read_count("number of keys", kMinKeyValueBytes);
  std::map<std::string, uint64_t> value_offsets;
  const uint64_t metadata_begin = cursor.offset();
  metadata_ = read_metadata(cursor, n_keys, value_offsets);
  metadata_bytes_ = cursor.offset() - metadata_begin;
  alignment_ = alignment_of(cursor, metadata_, value_offsets);

  struct Place {
    uint64_t entry, offset;
  };
  std::vector<Place> places;  // where each tensor's entry and its offset are written
  for (uint64_t i = 0; i < n_tensors; ++i) {
    const uint64_t at = cursor.offset();
    tensors_.push_back(read_tensor(cursor, i, n_tensors));
    places.push_back({at, cursor.offset() - sizeof(uint64_t)});
  }

  // A header cannot end near 2^64, so rounding it up to a u32 does not wrap.
  const uint64_t data_begin = round_up(cursor.offset(), alignment_);
  const uint64_t data_bytes = file_bytes_ > data_begin ? file_bytes_ - data_begin : 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    GgufTensor& tensor = tensors_[i];
    const uint64_t at = places[i].offset;
    cursor.set_place("tensor " + quoted(tensor.name));
    if (!by_name_.emplace(tensor.name, i).second) cursor.fail(places[i].entry, "name", "each name once", "it twice");
    if (tensor.offset % alignment_ != 0)
      cursor.fail(at, "offset", "a multiple of the alignment " + std::to_string(alignment_),
                  std::to_string(tensor.offset));
    const auto end = checked_add(tensor.offset, tensor.bytes);
    if (!end || *end > data_bytes)
      cursor.fail(at, "offset",
                  std::to_string(tensor.bytes) + " bytes inside the data section of " + std::to_string(data_bytes) +
                      " (from byte " + std::to_string(data_begin) + ")",
                  "offset " + std::to_string(tensor.offset));
    tensor.offset += data_begin;
  }
  // No two tensors share a byte.
  std::vector<size_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [this](size_t a, size_t b) { return tensors_[a].offset < tensors_[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const GgufTensor &before = tensors_[order[i - 1]], &tensor = tensors_[order[i]];
    if (before.offset + before.bytes <= tensor.offset) continue;
    cursor.set_place("tensor " + quoted(tensor.name));
    cursor.fail(places[order[i]].offset, "offset",
                "bytes behind those of tensor " + quoted(before.name) + ", which end at byte " +
                    std::to_string(before.offset + before.bytes),
                "byte " + std::to_string(tensor.offset));
  }
}

GgufFile::~GgufFile() = default;

std::shared_ptr<GgufFile> GgufFile::open(const std::string& path) {
  auto file = std::make_unique<MappedFile>(path);
  const std::span<const std::byte> bytes(file->data(), static_cast<size_t>(file->size()));
  const uint64_t size = bytes.size();
  return std::shared_ptr<GgufFile>(new GgufFile(bytes, size, path, std::move(file)));
}

std::shared_ptr<GgufFile> GgufFile::open_header(const std::string& path) {
  std::exception_ptr damaged;
  for (uint64_t most = kHeaderBytes;; most *= 8) {
    std::unique_ptr<MappedFile> file;
    try {
      file = std::make_unique<MappedFile>(path, most);
    } catch (const MemoryLimitError&) {  // no room for more of it: what was wrong with less is told
      if (damaged == nullptr) throw;
      std::rethrow_exception(damaged);
    }
    const std::span<const std::byte> bytes(file->data(), static_cast<size_t>(file->size()));
    const uint64_t whole = file->file().size();
    try {
      return std::shared_ptr<GgufFile>(new GgufFile(bytes, whole, path, std::move(file)));
    } catch (const ModelFormatError&) {  // damaged, or a header that is longer than that
      if (bytes.size() == whole) throw;
      damaged = std::current_exception();
    }
  }
}

std::shared_ptr<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, const std::string& source_name) {
  return std::shared_ptr<GgufFile>(new GgufFile(bytes, bytes.size(), source_name, nullptr));
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto entry = by_name_.find(name);
  return entry == by_name_.end() ? nullptr : &tensors_[entry->second];
}

std::vector<std::string_view> GgufFile::names() const {
  std::vector<std::string_view> names;
  for (const GgufTensor& tensor : tensors_) names.push_back(tensor.name);
  return names;
}

uint64_t GgufFile::fingerprint() const {
  return file_ == nullptr ? fingerprint_of(bytes_) : fingerprint_of(file_->file());
}

WeightView GgufFile::view(std::string_view name) const {
  const GgufTensor* tensor = find(name);
  if (tensor == nullptr)
    throw ModelFormatError(source_ + ": tensor " + quoted(name) + ": expected in the file, found " +
                           std::to_string(tensors_.size()) + " tensors of other names");
  if (!tensor->supported)
    throw ModelFormatError(source_ + ": byte " + std::to_string(tensor->offset) + ": tensor " + quoted(name) +
                           ": type: expected one of " + supported_tensor_types() + ", found " + tensor->type_name);
  const uint64_t cols = tensor->shape[0];
  const std::byte* const data = bytes_.size() == file_bytes_ ? bytes_.data() + tensor->offset : nullptr;
  WeightView view;
  view.name = tensor->name, view.type = static_cast<DType>(tensor->type), view.data = data;
  view.rows = tensor->n_elements / cols, view.cols = cols, view.bytes = tensor->bytes, view.offset = tensor->offset;
  for (size_t i = 2; i < tensor->shape.size(); ++i) view.matrices *= tensor->shape[i];
  return view;
}

void GgufFile::advise(const std::byte* data, uint64_t bytes, Need need) const {
  if (file_ != nullptr) file_->advise(data, bytes, need);
}

}  // namespace foundry
