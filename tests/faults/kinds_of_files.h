// A tiny model in files of each kind that a model comes in: a split GGUF file, one of K-quants, and tensors whose table
// somebody else reads, as those of a Hugging Face directory, and of one whose weights are arranged otherwise.
#pragma once
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>

#include "cpp/gguf_files.h"
#include "cpp/tiny_llama.h"
#include "files/arranged_files.h"
#include "files/joined_files.h"
#include "files/tensor_file.h"
#include "formats/half.h"

namespace foundry::test {

enum class Kind { split, k_quant, directory, arranged };

class FilesOfAKind {
 public:
  FilesOfAKind(Kind kind, const Graph& graph) : kind_(kind), graph_(graph) {
    folder_ = (std::filesystem::temp_directory_path() / ("foundry-kinds-" + std::to_string(::getpid()))).string();
    std::filesystem::create_directories(folder_);
    const size_t count = kind == Kind::k_quant ? 1 : 2;
    tables_.resize(count);
    for (size_t part = 0; part < count; ++part) {
      paths_.push_back(folder_ + "/" + std::to_string(part));
      std::ofstream(paths_.back(), std::ios::binary) << part_of(part, count);
    }
  }
  ~FilesOfAKind() { std::filesystem::remove_all(folder_); }
  FilesOfAKind(const FilesOfAKind&) = delete;

  std::shared_ptr<WeightSource> open(bool header_only) const {
    std::vector<std::shared_ptr<const WeightSource>> parts;
    for (size_t part = 0; part < paths_.size(); ++part) {
      if (!tables_are_apart()) {
        const auto file = header_only ? GgufFile::open_header(paths_[part]) : GgufFile::open(paths_[part]);
        if (paths_.size() == 1) return file;
        parts.push_back(file);
        continue;
      }
      const auto file = std::make_shared<TensorFile>(paths_[part], header_only);
      if (file->read(0, 8).size() != 8) throw ModelFormatError("expected eight bytes, found fewer");
      for (const auto& [name, w] : tables_[part])  // norms are less one, as Gemma's are: they are copied
        file->add(their_name(name), DType::f32, w.rows, w.cols, w.offset, w.rows == 1 ? 1.0f : 0.0f);
      parts.push_back(file);
    }
    const auto joined = std::make_shared<JoinedFiles>(std::move(parts));
    if (kind_ != Kind::arranged) return joined;
    const auto arranged = std::make_shared<ArrangedFiles>(joined);
    for (const WeightRef& w : graph_.weights)  // rows of their columns, the last first
      if (their_name(w.name) != w.name) {
        std::vector<uint32_t> last_first(w.rows);
        std::iota(last_first.rbegin(), last_first.rend(), 0u);
        arranged->add(w.name, {{their_name(w.name)}, 1, true, std::move(last_first)});
      }
    return arranged;
  }

 private:
  struct Entry {
    uint64_t rows, cols, offset;
  };

  bool tables_are_apart() const { return kind_ == Kind::directory || kind_ == Kind::arranged; }
  std::string their_name(const std::string& name) const {
    return kind_ == Kind::arranged && name.find("attn_q.") != std::string::npos ? "their " + name : name;
  }

  /// Of the weights each count-th.
  std::string part_of(size_t part, size_t count) {
    FileSpec spec;
    Bytes data;
    for (size_t i = part; i < graph_.weights.size(); i += count) {
      const WeightRef& w = graph_.weights[i];
      const bool vector = w.rows == 1, plain = vector || kind_ != Kind::k_quant;
      const uint64_t offset = data.str().size();
      spec.tensors.push_back({w.name, vector ? std::vector<uint64_t>{w.cols} : std::vector<uint64_t>{w.cols, w.rows},
                              plain ? uint32_t{kTypeF32} : kTypeQ4_K, offset});
      tables_[part][w.name] = {w.rows, w.cols, offset};
      if (plain)
        for (uint64_t j = 0; j < w.rows * w.cols; ++j) data.put(vector ? 0.5f + draw() : 0.1f * (draw() - 0.5f));
      else
        for (uint64_t j = 0; j < w.rows * w.cols / 256; ++j) q4_k(data);
      data.pad(32);
    }
    if (tables_are_apart()) return data.str();
    spec.data = data.str();
    return spec.encode();
  }
  /// d, dmin, 12 bytes of scales, 128 of codes.
  void q4_k(Bytes& data) {
    data.put(f32_to_f16(1e-4f)).put(f32_to_f16(1e-3f));
    for (int i = 0; i < 140; ++i) data.put(static_cast<uint8_t>(random_()));
  }
  float draw() { return static_cast<float>(random_() % 1000) / 1000.0f; }

  static constexpr uint32_t kTypeQ4_K = 12;
  Kind kind_;
  const Graph& graph_;
  std::mt19937 random_{3};
  std::string folder_;
  std::vector<std::string> paths_;
  std::vector<std::map<std::string, Entry>> tables_;  // of each file
};

}  // namespace foundry::test
