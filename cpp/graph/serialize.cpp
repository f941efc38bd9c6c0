// The graph as text, a line for each thing: of an op what every op has, then its kind's attributes by their keys
// (ops.h). Floats are hexadecimal, so that they come back exactly. Names are quoted and hold no quote, backslash or line
// break.
//   foundry-graph 2
//   arch "llama" layers 2 heads 4 kv_heads 2 head_dim 8 hidden 32 vocab 320 max_seq_len 512
//   group layers 2 kv_heads 2 head_dim 8 window 0
//   recurrent layers 3 width 64 1024
//   weight "token_embd.weight" rows 320 cols 32
//   weight "blk.0.attn_qkv.weight" rows 16 cols 32 first 32 of 64
//   weight "factors of yarn" rows 1 cols 2 constant 0x1p+0 0x1p+2
//   weight "blk.0.ffn_up_exps.weight" rows 16 cols 32 experts 8
//   value width 32 tokens
//   value width 2 tokens experts
//   op embed "embed" in out 0 w 0 scale 0x1p+0
//   logits 25
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>

#include "base/error.h"
#include "base/hash.h"
#include "base/hex_float.h"
#include "graph/graph.h"

namespace foundry {
namespace {

constexpr int kVersion = 2;

/// Whether files may have ops of this kind.
template <class Kind>
constexpr bool kWritten = !std::is_same_v<Kind, FusedLinearOp> && !std::is_same_v<Kind, FusedAppendOp>;

std::string quoted(const std::string& name) {
  for (const char c : name)
    if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20)
      throw ModelFormatError("a name that can't be serialised: " + name);
  return "\"" + name + "\"";
}

/// Text as it grows: a word with a space before it, quoted names as they are.
class Text {
 public:
  template <class... Words>
  Text& line(const Words&... words) {
    if (!text_.empty()) text_ += '\n';
    begins_ = true;
    return add(words...);
  }
  template <class... Words>
  Text& add(const Words&... words) {
    (word(words), ...);
    return *this;
  }
  std::string take() { return std::move(text_) + '\n'; }

 private:
  template <class T>
  void word(const T& value) {
    if (!begins_) text_ += ' ';
    begins_ = false;
    if constexpr (std::is_same_v<T, float>)
      text_ += hex_float(value);
    else if constexpr (std::is_integral_v<T>)
      text_ += std::to_string(value);
    else
      text_ += value;
  }
  std::string text_;
  bool begins_ = true;
};

void list(Text& out, const char* key, const std::vector<int32_t>& ids) {
  out.add(key);
  for (const int32_t id : ids) out.add(id);
}

/// Words of one line; every fault names the line.
class Line {
 public:
  Line(const std::string& text, size_t number) : number_(number) {
    size_t i = 0;
    while (i < text.size()) {
      if (text[i] == ' ') {
        ++i;
      } else if (text[i] == '"') {
        const size_t end = text.find('"', i + 1);
        if (end == std::string::npos) fail("a name without its closing quote");
        words_.push_back(text.substr(i, end - i));
        i = end + 1;
      } else {
        const size_t end = std::min(text.find(' ', i), text.size());
        words_.push_back(text.substr(i, end - i));
        i = end;
      }
    }
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw ModelFormatError("graph line " + std::to_string(number_) + ": " + what);
  }
  bool more() const { return at_ < words_.size(); }
  std::string word() {
    if (!more()) fail("ends too early");
    return words_[at_++];
  }
  std::string name() {
    const std::string w = word();
    if (w[0] != '"') fail("expected a quoted name, found " + w);
    return w.substr(1);
  }
  void expect(const char* key) {
    const std::string w = word();
    if (w != key) fail(std::string("expected ") + key + ", found " + w);
  }
  int64_t integer() {
    const std::string w = word();
    char* end = nullptr;
    errno = 0;
    const long long value = std::strtoll(w.c_str(), &end, 10);
    if (end != w.c_str() + w.size() || w.empty() || errno != 0) fail("expected a whole number, found " + w);
    return value;
  }
  uint32_t u32(const char* key) {
    expect(key);
    return u32();
  }
  uint32_t u32() {
    const std::string key = words_[at_ - 1];
    const int64_t value = integer();
    if (value < 0 || value > UINT32_MAX) fail(key + ": expected 0 to 4294967295, found " + std::to_string(value));
    return static_cast<uint32_t>(value);
  }
  float real(const char* key) {
    expect(key);
    return number(key);
  }
  float number(const char* key) {
    const std::string w = word();
    const std::optional<float> value = parse_hex_float(w);
    if (!value) fail(std::string(key) + ": expected a number, found " + w);
    return *value;
  }
  /// Whether the next word is this one.
  bool next_is(const char* key) const { return more() && words_[at_] == key; }
  std::vector<int32_t> ids(const char* key) {
    expect(key);
    std::vector<int32_t> result;
    while (more() && (words_[at_][0] == '-' || (words_[at_][0] >= '0' && words_[at_][0] <= '9'))) {
      const int64_t id = integer();
      if (id < -1 || id > INT32_MAX) fail(std::string(key) + ": an id out of range, " + std::to_string(id));
      result.push_back(static_cast<int32_t>(id));
    }
    return result;
  }
  void end() const {
    if (more()) fail("expected nothing more, found " + words_[at_]);
  }

 private:
  std::vector<std::string> words_;
  size_t at_ = 0;
  size_t number_;
};

void read_attribute(Line& line, const char* key, uint32_t& to) { to = line.u32(key); }
void read_attribute(Line& line, const char* key, float& to) { to = line.real(key); }
void write_attribute(Text& out, const char* key, uint32_t value) { out.add(key, value); }
void write_attribute(Text& out, const char* key, float value) { out.add(key, value); }

/// Attributes that are written only where they differ from a default.
template <class T>
void read_attribute(Line& line, const char* key, T& to, T) {
  if (line.next_is(key)) read_attribute(line, key, to);
}
template <class T>
void write_attribute(Text& out, const char* key, T value, T usual) {
  if (std::memcmp(&value, &usual, sizeof value) != 0) write_attribute(out, key, value);
}

/// The kind of this name, with default attributes.
template <size_t at = 0>
Op::Kind kind_of(const std::string& name, const Line& line) {
  if constexpr (at == std::variant_size_v<Op::Kind>) {
    line.fail("no op of the name " + name);
  } else {
    using Kind = std::variant_alternative_t<at, Op::Kind>;
    if (kWritten<Kind> && name == Kind::kName) return Kind{};
    return kind_of<at + 1>(name, line);
  }
}

Op parse_op(Line& line) {
  Op op;
  op.kind = kind_of(line.word(), line);
  op.name = line.name();
  op.inputs = line.ids("in");
  op.outputs = line.ids("out");
  op.weights = line.ids("w");
  std::visit(
      [&](auto& kind) {
        using Kind = std::decay_t<decltype(kind)>;
        if constexpr (kWritten<Kind>)
          Kind::fields(
              kind, [&](const char* key, auto& value, auto... usual) { read_attribute(line, key, value, usual...); });
      },
      op.kind);
  return op;
}

void write_op(Text& out, const Op& op, bool named) {
  out.line("op", op.kind_name(), named ? quoted(op.name) : "\"\"");
  list(out, "in", op.inputs);
  list(out, "out", op.outputs);
  list(out, "w", op.weights);
  std::visit(
      [&](const auto& kind) {
        using Kind = std::decay_t<decltype(kind)>;
        if constexpr (kWritten<Kind>)
          Kind::fields(kind, [&](const char* key, const auto& value, auto... usual) {
            write_attribute(out, key, value, usual...);
          });
      },
      op.kind);
}

std::string written(const Graph& graph, bool named) {
  if (graph.fused)
    throw ValueError("a fused graph is a device's and is not written; expected the graph that it was made of");
  Text out;
  const Arch& a = graph.arch;
  out.line("foundry-graph", kVersion);
  out.line("arch", quoted(a.name), "layers", a.n_layers, "heads", a.n_heads, "kv_heads", a.n_kv_heads);
  out.add("head_dim", a.head_dim, "hidden", a.hidden_size, "vocab", a.vocab_size, "max_seq_len", a.max_seq_len);
  for (const LayerGroup& g : graph.groups)
    out.line("group layers", g.n_layers, "kv_heads", g.n_kv_heads, "head_dim", g.head_dim, "window", g.window);
  if (graph.recurrent.n_layers != 0) {
    out.line("recurrent layers", graph.recurrent.n_layers, "width");
    for (const uint32_t width : graph.recurrent.widths) out.add(width);
  }
  for (const WeightRef& w : graph.weights) {
    out.line("weight", quoted(w.name), "rows", w.rows, "cols", w.cols);
    if (w.whole != 0) out.add("first", w.first, "of", w.whole);
    if (w.experts != 0) out.add("experts", w.experts);
    if (!w.constant.empty()) out.add("constant");
    for (const float value : w.constant) out.add(value);
  }
  for (const Value& v : graph.values) {
    out.line("value width", v.width, v.rows == Rows::tokens ? "tokens" : "selected");
    if (v.holds == Holds::experts) out.add("experts");
  }
  for (const Op& op : graph.ops) write_op(out, op, named);
  out.line("logits", graph.logits);
  return out.take();
}

}  // namespace

std::string Graph::serialize() const { return written(*this, true); }

uint64_t Graph::hash() const {
  const std::string text = written(*this, false);
  return hash64(std::as_bytes(std::span(text)));
}

Graph Graph::parse(const std::string& text) {
  Graph graph;
  size_t number = 0;
  bool ended = false;
  for (size_t at = 0, end; at < text.size(); at = end + 1) {
    end = std::min(text.find('\n', at), text.size());
    Line line(text.substr(at, end - at), ++number);
    if (number == 1) {
      line.expect("foundry-graph");
      if (const int64_t version = line.integer(); version != kVersion)
        line.fail("expected version " + std::to_string(kVersion) + ", found " + std::to_string(version));
      line.end();
      continue;
    }
    if (ended) line.fail("expected nothing after logits");
    const std::string key = line.word();
    if (key == "arch") {
      Arch& a = graph.arch;
      a.name = line.name();
      a.n_layers = line.u32("layers");
      a.n_heads = line.u32("heads");
      a.n_kv_heads = line.u32("kv_heads");
      a.head_dim = line.u32("head_dim");
      a.hidden_size = line.u32("hidden");
      a.vocab_size = line.u32("vocab");
      a.max_seq_len = line.u32("max_seq_len");
    } else if (key == "group") {
      LayerGroup g;
      g.n_layers = line.u32("layers");
      g.n_kv_heads = line.u32("kv_heads");
      g.head_dim = line.u32("head_dim");
      g.window = line.u32("window");
      graph.groups.push_back(g);
    } else if (key == "recurrent") {
      graph.recurrent.n_layers = line.u32("layers");
      graph.recurrent.widths = {line.u32("width")};
      while (line.more()) graph.recurrent.widths.push_back(line.u32());
    } else if (key == "weight") {
      WeightRef w;
      w.name = line.name();
      w.rows = line.u32("rows");
      w.cols = line.u32("cols");
      if (line.next_is("first")) w.first = line.u32("first"), w.whole = line.u32("of");
      if (line.next_is("experts")) {
        w.experts = line.u32("experts");
        if (w.experts == 0) line.fail("experts: expected at least 1, found 0");
      }
      if (line.next_is("constant")) {
        line.expect("constant");
        while (line.more()) w.constant.push_back(line.number("constant"));
      }
      graph.weights.push_back(w);
    } else if (key == "value") {
      Value v;
      v.width = line.u32("width");
      const std::string rows = line.word();
      if (rows != "tokens" && rows != "selected") line.fail("expected tokens or selected, found " + rows);
      v.rows = rows == "tokens" ? Rows::tokens : Rows::selected;
      if (line.next_is("experts")) line.expect("experts"), v.holds = Holds::experts;
      graph.values.push_back(v);
    } else if (key == "op") {
      graph.ops.push_back(parse_op(line));
    } else if (key == "logits") {
      const int64_t id = line.integer();
      if (id < -1 || id > INT32_MAX) line.fail("an id out of range, " + std::to_string(id));
      graph.logits = static_cast<ValueId>(id);
      ended = true;
    } else {
      line.fail("expected arch, group, recurrent, weight, value, op or logits, found " + key);
    }
    line.end();
  }
  if (!ended) throw ModelFormatError("graph: ends after line " + std::to_string(number) + " without logits");
  return graph;
}

}  // namespace foundry
