// kv_append and attention over pages: every device against the reference; the same bits for any chunking, page size and threads;
// no byte touched that is not theirs. Pages begin as NaN, so a read past what was written shows.
#include <doctest/doctest.h>

#include "device/reference/pages.h"
#include "kernels/attention_run.h"

namespace foundry::kernel_tests {
namespace {

using reference::Part;

/// What a page must hold after the step: the values of its positions, rounded to their type, and poison everywhere else.
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
    for (uint32_t h = 0; h < g.n_kv_heads; ++h)
      for (uint32_t d = 0; d < g.head_dim; ++d) {
        const uint64_t at = (uint64_t{t} * g.n_kv_heads + h) * g.head_dim + d;
        reference::store(reference::element(kv, sequence, kLayer, h, Part::k, t, d), kv.k_type, in.k[s][at]);
        reference::store(reference::element(kv, sequence, kLayer, h, Part::v, t, d), kv.v_type, in.v[s][at]);
      }
  for (size_t p = 0; p < expected.size(); ++p) {
    if (!run.pages(s)[p].guards_intact()) return "page " + std::to_string(p) + ": a byte outside it was written";
    for (uint64_t i = 0; i < g.page_bytes(); ++i)
      if (run.pages(s)[p].data()[i] != expected[p][i])
        return "page " + std::to_string(p) + " differs at byte " + std::to_string(i) + " of " +
               std::to_string(g.page_bytes());
  }
  return "";
}

/// How far an output may be off: roundings of the scores move the weights, a weighted mean of V moves with them.
double attention_bound(const AttentionInputs& in, size_t s) {
  double v = 0;
  for (const float x : in.v[s]) v = std::max(v, std::fabs(static_cast<double>(x)));
  // |q| <= 4, |k| <= 1: a score is at most 4 head_dim scale, of which a few roundings.
  const double score = 4 * std::sqrt(static_cast<double>(in.head_dim)) * roundings(in.head_dim) * kUnit;
  return 2 * v * (score + 2e-7 + roundings(in.sequences[s].start + in.sequences[s].rows) * kUnit);
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

TEST_CASE("attention agrees with the reference, kv_append writes what it should") {
  const auto truth = make_device({"reference", 1});
  for (const cases::Case& one : cases_of("attention")) {
    const AttentionInputs in = attention_inputs(one);
    AttentionRun expected_run(*truth, in, one.number("page_tokens"), one.text);
    const auto expected = expected_run.run();
    for (const std::string& name : other_devices()) {
      const std::string who = name + ", " + one.text;
      const auto device = make_device({name, 2});
      AttentionRun run(*device, in, one.number("page_tokens"), who);
      const auto found = run.run();
      for (size_t s = 0; s < found.size(); ++s) {
        const std::string off =
            compare(found[s], expected[s], [bound = attention_bound(in, s)](size_t) { return bound; });
        CHECK_MESSAGE(off == "", who, ": sequence ", s, ", ", off);
        const std::string pages = compare_pages(run, in, s);
        CHECK_MESSAGE(pages == "", who, ": sequence ", s, ", ", pages);
      }
    }
  }
}

TEST_CASE("attention: bits do not depend on chunking, batch-mates, page size or threads") {
  for (const std::string& name : all_devices()) {
    const auto device = make_device({name, 1}), threaded = make_device({name, 3});
    for (const cases::Case& one : cases_of("attention")) {
      const AttentionInputs in = attention_inputs(one);
      const uint32_t page_tokens = one.number("page_tokens");
      const std::string who = name + ", " + one.text;
      const auto whole = AttentionRun(*device, in, page_tokens, who).run();
      std::string off = compare_all_bits(AttentionRun(*threaded, in, page_tokens, who).run(), whole);
      CHECK_MESSAGE(off == "", who, ": three threads: ", off);
      off = compare_all_bits(AttentionRun(*device, in, page_tokens, who).run(1), whole);
      CHECK_MESSAGE(off == "", who, ": a row at a time: ", off);
      off = compare_all_bits(AttentionRun(*device, in, page_tokens == 8 ? 256 : 8, who).run(5), whole);
      CHECK_MESSAGE(off == "", who, ": other pages, five rows at a time: ", off);
    }
  }
}

}  // namespace foundry::kernel_tests
