// kv_append and attention over pages: every device against the reference; the same bits for any chunking, page size,
// capacity and threads; no byte touched that is not theirs. Pages begin as NaN, so a read past what was written shows.
#include <doctest/doctest.h>

#include "device/reference/pages.h"
#include "kernels/attention_run.h"

namespace foundry::kernel_tests {
namespace {

using reference::Part;

/// What a page must hold after the step: the values of its positions, rounded to their type, and poison everywhere
/// else.
std::string compare_pages(const AttentionRun& run, const AttentionInputs& in, size_t s) {
  const KvGeometry& g = run.geometry();
  const KvParams kv = g.params();
  const uint32_t n_tokens = in.sequences[s].start + in.sequences[s].rows;
  std::vector<std::vector<std::byte>> expected(run.pages(s).size(), std::vector<std::byte>(g.page_bytes(), kPoison));
  std::vector<uint64_t> addresses;
  for (auto& page : expected) addresses.push_back(reinterpret_cast<uint64_t>(page.data()));
  SequenceParams sequence{};
  sequence.pages = reinterpret_cast<uint64_t>(addresses.data());
  for (uint32_t t = 0; t < n_tokens; ++t)
    for (uint32_t h = 0; h < g.n_kv_heads; ++h) {
      const uint64_t at = (uint64_t{t} * g.n_kv_heads + h) * g.head_dim;
      reference::store(kv, sequence, kLayer, h, Part::k, t, in.k[s].data() + at);
      reference::store(kv, sequence, kLayer, h, Part::v, t, in.v[s].data() + at);
    }
  for (size_t p = 0; p < expected.size(); ++p) {
    if (!run.pages(s)[p].guards_intact()) return "page " + std::to_string(p) + ": a byte outside it was written";
    const auto found = run.pages(s)[p].read<std::byte>();
    if (found == expected[p]) continue;
    for (uint64_t i = 0; i < g.page_bytes(); ++i)
      if (found[i] != expected[p][i])
        return "page " + std::to_string(p) + " differs at byte " + std::to_string(i) + " of " +
               std::to_string(g.page_bytes());
  }
  return "";
}

double longest(const std::vector<float>& x, uint32_t dim) {
  double most = 0;
  for (size_t at = 0; at < x.size(); at += dim) {
    double squares = 0;
    for (uint32_t d = 0; d < dim; ++d) squares += static_cast<double>(x[at + d]) * x[at + d];
    most = std::max(most, squares);
  }
  return std::sqrt(most);
}

/// How far an output may be off: roundings of the scores move the weights, a weighted mean of V moves with them.
double attention_bound(const AttentionInputs& in, size_t s, bool half_tiles = false) {
  double v = 0;
  for (const float x : in.v[s]) v = std::max(v, std::fabs(static_cast<double>(x)));
  // sum |q_d k_d| <= |q| |k| (Cauchy and Schwarz); K is read as it was stored, by the reference too.
  const double terms = 1.01 * longest(in.q[s], in.head_dim) * longest(in.k[s], in.head_dim);
  double score = terms / std::sqrt(static_cast<double>(in.head_dim)) * roundings(in.head_dim) * kUnit;
  score += 8 * kUnit * static_cast<double>(in.cap);  // tanh is off by some units of at most 1
  // Queries may be rounded to 16256ths of a block's largest value where K has blocks: half a step, and signs cancel in
  // a sum.
  if (block_elements(in.k_type) != 1) score += 2 * terms / std::sqrt(static_cast<double>(in.head_dim)) / (2 * 16256);
  // Tiles hold q, k, v and weights as f16: half an ulp each, whose signs cancel in a sum.
  if (half_tiles) score += (2 * terms / std::sqrt(static_cast<double>(in.head_dim)) / in.head_dim * 8 + 2) * 0x1p-11;
  return 2 * v * (score + 2e-7 + roundings(in.sequences[s].start + in.sequences[s].rows) * kUnit);
}

/// What rounds in an awkward way to f16 or bf16: ties, subnormals, the last finite values, infinities, zeros of both
/// signs.
void sprinkle(Random& random, std::vector<float>& x) {
  const float awkward[] = {0.0f,       -0.0f,     0x1p-24f,  0x1p-25f,    0x1.8p-25f, 0x1.8p-24f, 0x1.ffdp-15f,
                           1e-40f,     1e-7f,     65504.0f,  65519.99f,   65520.0f,   -65520.0f,  0x1.002p0f,
                           0x1.006p0f, 0x1.01p0f, 0x1.03p0f, 0x1.ffp127f, 3.4e38f,    HUGE_VALF,  -HUGE_VALF};
  for (float& value : x)
    if (random.below(8) == 0) value = awkward[random.below(std::size(awkward))];
}

std::string compare_all_bits(const std::vector<std::vector<float>>& found,
                             const std::vector<std::vector<float>>& expected) {
  for (size_t s = 0; s < expected.size(); ++s) {
    const std::string off = compare_bits(found[s], expected[s]);
    if (!off.empty()) return "sequence " + std::to_string(s) + ", " + off;
  }
  return "";
}

}  // namespace

TEST_CASE("kv_append writes the values of its rows, rounded, and nothing else") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name, 2);
    for (const cases::Case& one : cases_of("kv_append", *device)) {
      const std::string who = name + ", " + one.text;
      AttentionInputs in = attention_inputs(one);
      Random random(one.seed() + 1);
      for (size_t s = 0; s < in.sequences.size(); ++s) sprinkle(random, in.k[s]), sprinkle(random, in.v[s]);
      AttentionRun run(device, in, one.number("page_tokens"), who, 1);
      run.append();
      for (size_t s = 0; s < in.sequences.size(); ++s) {
        const std::string off = compare_pages(run, in, s);
        CHECK_MESSAGE(off == "", who, ": sequence ", s, ", ", off);
      }
    }
  }
}

TEST_CASE("attention agrees with the reference and leaves the pages as they are") {
  TestDevice truth("reference");
  for (const cases::Case& one : cases_of("attention")) {
    const AttentionInputs in = attention_inputs(one);
    const auto expected = AttentionRun(truth, in, one.number("page_tokens"), one.text).run();
    for (const std::string& name : other_devices()) {
      const std::string who = name + ", " + one.text;
      TestDevice device(name, 2);
      if (!readable(one, *device)) continue;
      AttentionRun run(device, in, one.number("page_tokens"), who);
      const auto found = run.run();
      for (size_t s = 0; s < found.size(); ++s) {
        const std::string off =
            compare(found[s], expected[s],
                    [bound = attention_bound(in, s, device->info().half_tiles)](size_t) { return bound; });
        CHECK_MESSAGE(off == "", who, ": sequence ", s, ", ", off);
        const std::string pages = compare_pages(run, in, s);
        CHECK_MESSAGE(pages == "", who, ": sequence ", s, ", ", pages);
      }
    }
  }
}

TEST_CASE("attention agrees with the reference where every score is far below zero") {
  TestDevice truth("reference");
  for (const cases::Case& one : cases_of("attention")) {
    AttentionInputs in = attention_inputs(one);
    if (in.window == 0) continue;  // what windows mask is the hardest: tokens before and behind
    for (auto& q : in.q)
      for (float& x : q) x = -30 * std::fabs(x);
    for (auto& k : in.k)
      for (float& x : k) x = std::fabs(x);
    const auto expected = AttentionRun(truth, in, one.number("page_tokens"), one.text).run();
    for (const std::string& name : other_devices()) {
      TestDevice device(name, 2);
      if (!readable(one, *device)) continue;
      const auto found = AttentionRun(device, in, one.number("page_tokens"), name + ", " + one.text).run();
      for (size_t s = 0; s < found.size(); ++s) {
        const std::string off =
            compare(found[s], expected[s],
                    [bound = attention_bound(in, s, device->info().half_tiles)](size_t) { return bound; });
        CHECK_MESSAGE(off == "", name, ", ", one.text, ": sequence ", s, ", ", off);
      }
    }
  }
}

TEST_CASE("attention: bits depend on no chunking, batch-mates, page size, capacity, unseen tokens or threads") {
  for (const std::string& name : all_devices()) {
    TestDevice device(name), two(name, 2), three(name, 3);
    uint64_t at = 0;
    for (const cases::Case& one : cases_of("attention", *device)) {
      const AttentionInputs in = attention_inputs(one);
      const uint32_t page_tokens = one.number("page_tokens");
      const std::string who = name + ", " + one.text;
      const auto whole = AttentionRun(device, in, page_tokens, who).run();
      const bool half_tiles = device->info().half_tiles;
      const auto same = [&](const auto& found, const char* how) {
        std::string off = half_tiles ? "" : compare_all_bits(found, whole);
        for (size_t s = 0; half_tiles && off == "" && s < whole.size(); ++s)
          off = compare(found[s], whole[s], [bound = 2 * attention_bound(in, s, true)](size_t) { return bound; });
        CHECK_MESSAGE(off == "", who, ": ", how, ": ", off);
      };
      TestDevice& threads = ++at % 2 == 0 ? two : three;  // more threads than cores take long, so in turns
      same(AttentionRun(threads, in, page_tokens, who).run(), at % 2 == 0 ? "two threads" : "three threads");
      same(AttentionRun(device, in, page_tokens, who).run(1), "a row at a time");
      same(AttentionRun(device, in, page_tokens == 8 ? 256 : 8, who, 2).run(5),
           "other and more pages, five rows at a time");
      if (in.window != 0)
        same(AttentionRun(device, with_unseen_spoilt(in), page_tokens, who).run(), "NaN before windows");
      for (size_t s = 0; whole.size() > 1 && s < whole.size(); ++s) {
        const AttentionInputs alone = only(in, s);
        const std::string off = compare_bits(AttentionRun(device, alone, page_tokens, who).run()[0], whole[s]);
        CHECK_MESSAGE(off == "", who, ": sequence ", s, " alone: ", off);
      }
    }
  }
}

}  // namespace foundry::kernel_tests
