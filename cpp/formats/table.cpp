#include "formats/table.h"

#include <vector>

#include "base/error.h"

namespace foundry {
namespace {

#define FOUNDRY_ROW(name, Name, number, elements, bytes, kind, linear, table, kv) \
  {DType::name, #name, #Name, elements, bytes, Readers::linear, Readers::table, Readers::kv},
constexpr Format kFormats[] = {FOUNDRY_FORMATS(FOUNDRY_ROW)};
#undef FOUNDRY_ROW

}  // namespace

std::span<const Format> formats() { return kFormats; }

const Format& format_of(DType type) {
  for (const Format& format : kFormats)
    if (format.type == type) return format;
  throw ConsistencyError("type " + std::to_string(static_cast<uint32_t>(type)) + " is no format");
}

const Format* find_format(const std::string& name) {
  for (const Format& format : kFormats)
    if (name == format.name) return &format;
  return nullptr;
}

void check_readable(const Format& format, Readers Format::* use, bool gpu, const std::string& what) {
  if (reads(format.*use, gpu)) return;
  throw ModelFormatError(what + ": expected " + format_names(use, gpu) + (gpu ? " on a GPU" : "") + ", found " +
                         format.name);
}

std::string format_names(Readers Format::* use, bool gpu) {
  std::vector<const char*> found;
  for (const Format& format : kFormats)
    if (reads(format.*use, gpu)) found.push_back(format.name);
  std::string names;
  for (size_t i = 0; i < found.size(); ++i)
    names += std::string(i == 0 ? "" : i + 1 < found.size() ? ", " : " or ") + found[i];
  return names;
}

}  // namespace foundry
