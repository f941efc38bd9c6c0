// Reads the case table (kernels.cases, which tells the format): each line becomes one case for every combination of its
// lists.
#pragma once
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "formats/table.h"

namespace foundry::cases {

struct SequenceCase {
  uint32_t start;
  uint32_t rows;
};

inline std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, by);) parts.push_back(part);
  return parts;
}

inline DType parse_type(const std::string& text) {
  if (const Format* format = find_format(text)) return format->type;
  throw std::invalid_argument("no such type: " + text);
}

struct Case {
  bool bench = false;
  std::string op;
  std::string text;  // op and settings of this one combination, for messages
  std::map<std::string, std::string> settings;

  bool has(const std::string& key) const { return settings.count(key) != 0; }
  /// A setting that is there; std::invalid_argument names the case that lacks it.
  const std::string& get(const std::string& key) const {
    const auto found = settings.find(key);
    if (found == settings.end()) throw std::invalid_argument(text + ": no " + key);
    return found->second;
  }
  uint32_t number(const std::string& key) const { return static_cast<uint32_t>(std::stoul(get(key))); }
  uint32_t number(const std::string& key, uint32_t fallback) const { return has(key) ? number(key) : fallback; }
  float real(const std::string& key) const { return std::stof(get(key)); }
  DType type(const std::string& key) const { return parse_type(get(key)); }
  std::vector<uint32_t> numbers(const std::string& key) const {
    std::vector<uint32_t> values;
    for (const std::string& part : split(get(key), '+')) values.push_back(static_cast<uint32_t>(std::stoul(part)));
    return values;
  }
  std::vector<DType> types(const std::string& key) const {
    std::vector<DType> values;
    for (const std::string& part : split(get(key), '+')) values.push_back(parse_type(part));
    return values;
  }
  std::vector<SequenceCase> sequences() const {
    std::vector<SequenceCase> values;
    for (const std::string& part : split(get("sequences"), '+')) {
      const size_t colon = part.find(':');
      if (colon == std::string::npos) throw std::invalid_argument(text + ": a sequence is start:rows");
      values.push_back(
          {static_cast<uint32_t>(std::stoul(part)), static_cast<uint32_t>(std::stoul(part.substr(colon + 1)))});
    }
    return values;
  }
  /// The same numbers for the same case on every machine: FNV-1a of its text.
  uint64_t seed() const {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return hash;
  }
};

/// What a value stands for: itself, or each format of a group, in the order of formats.def.
inline std::vector<std::string> values_of(const std::string& text) {
  if (text.empty() || text[0] != '@') return {text};
  std::vector<std::string> names;
  for (const Format& f : formats()) {
    const bool weight = f.linear != Readers::none, plain = f.block_elements == 1;
    const bool kv = f.kv != Readers::none;
    if (text == "@plain" ? weight && plain : text == "@quantised" ? weight && !plain : text == "@kv" ? kv : weight)
      names.push_back(f.name);
  }
  if (text != "@plain" && text != "@quantised" && text != "@kv" && text != "@weights")
    throw std::invalid_argument("no such group: " + text);
  return names;
}

/// Whether rows are whole blocks of the format that stands for a group.
inline bool whole_blocks(const Case& one, const std::string& format) {
  for (const char* key : {"in", "width", "head_dim"})
    if (one.has(key)) return one.number(key) % find_format(format)->block_elements == 0;
  return true;
}

/// Every case of the line, the first list turning slowest.
inline void expand(const std::string& line, std::vector<Case>& into) {
  std::istringstream in(line.substr(0, line.find('#')));
  Case first;
  if (!(in >> first.op)) return;
  if (first.op == "bench") {
    first.bench = true;
    in >> first.op;
  }
  first.text = first.op;
  std::vector<Case> combinations{first};
  for (std::string setting; in >> setting;) {
    const size_t equals = setting.find('=');
    if (equals == std::string::npos)
      throw std::invalid_argument("expected key=value, found " + setting + " in: " + line);
    const std::string key = setting.substr(0, equals);
    std::vector<Case> next;
    for (const Case& one : combinations)
      for (const std::string& listed : split(setting.substr(equals + 1), ','))
        for (const std::string& value : values_of(listed)) {
          if (value != listed && !whole_blocks(one, value)) continue;
          next.push_back(one);
          next.back().text += " " + key + "=" + value;
          next.back().settings[key] = value;
        }
    combinations = std::move(next);
  }
  into.insert(into.end(), combinations.begin(), combinations.end());
}

/// The cases of one op, for tests or for benches, in the table's order.
inline std::vector<Case> load(const std::string& path, const std::string& op, bool bench = false) {
  std::ifstream file(path);
  if (!file) throw std::invalid_argument("cannot read " + path);
  std::vector<Case> all, wanted;
  for (std::string line; std::getline(file, line);) expand(line, all);
  for (const Case& one : all)
    if (one.op == op && one.bench == bench) wanted.push_back(one);
  if (wanted.empty()) throw std::invalid_argument(path + " has no case of " + op);
  return wanted;
}

}  // namespace foundry::cases
