// libFuzzer target: any bytes either parse, and then every view lies inside them and dequantises, or give ModelFormatError.
// Anything else (another exception, a crash, a sanitizer's report) is a bug of the reader.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Icpp -Imetal/include
//     tests/fuzz/gguf_fuzz.cpp cpp/{gguf,files,formats,base}/*.cpp
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/block_formats.h"
#include "gguf/gguf.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  try {
    const auto file = foundry::GgufFile::parse({bytes, size}, "fuzz");
    for (const foundry::GgufTensor& tensor : file->tensors()) {
      require(file->find(tensor.name) == &tensor);
      require(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
      if (!tensor.supported) continue;
      const foundry::WeightView view = file->view(tensor.name);
      require(view.rows * view.cols == tensor.n_elements);
      require(foundry::row_bytes(view.type, view.cols) * view.rows == view.bytes);
      std::vector<float> row(view.cols);
      const uint64_t row_bytes = view.bytes / view.rows;
      foundry::dequantise_row(view.type, view.data, row.data(), view.cols);
      foundry::dequantise_row(view.type, view.data + row_bytes * (view.rows - 1), row.data(), view.cols);
    }
  } catch (const foundry::ModelFormatError& error) {
    require(std::string(error.what()).find("fuzz: byte ") == 0);
  }
  return 0;
}
