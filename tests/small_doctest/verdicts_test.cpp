// What each macro that the C++ tests use does when its check fails: the same whether it is doctest's or the small header's.
// This program is built on each that there is, and its own main judges; it needs neither to be right.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

bool went_on = false;
int two() { return 2; }
void nothing() {}
void refuse() { throw std::invalid_argument("expected 2, found 3"); }
struct Three {
  int three = 3;
};

TEST_CASE("passes: everything") {
  INFO("not shown " << 1);
  CAPTURE(two());
  CHECK(two() == 2);
  CHECK_FALSE(two() == 3);
  CHECK_MESSAGE(two() == 2, "not shown ", 2);
  REQUIRE(two() == 2);
  REQUIRE_MESSAGE(two() == 2, "not shown ", 3);
  CHECK_THROWS(refuse());
  CHECK_THROWS_AS(refuse(), std::logic_error);
  CHECK_THROWS_WITH(refuse(), "expected 2, found 3");
  CHECK_THROWS_WITH(refuse(), doctest::Contains("found 3"));
  CHECK_THROWS_WITH_AS(refuse(), doctest::Contains("found 3"), std::invalid_argument);
  CHECK_NOTHROW(nothing());
  went_on = true;
}
TEST_CASE_FIXTURE(Three, "passes: fixture") {
  CHECK(three++ == 3);
  went_on = three == 4;
}
TEST_CASE("passes: message") {
  MESSAGE("said " << two() << " times");
  went_on = true;
}
TEST_CASE_TEMPLATE("passes: template", T, char, int) {
  CHECK(sizeof(T) >= 1);
  went_on = true;
}

#define FAILS(name, ...)      \
  TEST_CASE("fails: " name) { \
    __VA_ARGS__;              \
    went_on = true;           \
  }
FAILS("CHECK", CHECK(two() == 3))
FAILS("CHECK_FALSE", CHECK_FALSE(two() == 2))
FAILS("CHECK_MESSAGE", CHECK_MESSAGE(two() == 3, "because ", true, " of ", 5))
FAILS("REQUIRE", REQUIRE(two() == 3))
FAILS("REQUIRE_MESSAGE", REQUIRE_MESSAGE(two() == 3, "because of ", 5))
FAILS("FAIL", FAIL("because of " << 5))
FAILS("CHECK_THROWS", CHECK_THROWS(nothing()))
FAILS("CHECK_THROWS_AS, nothing", CHECK_THROWS_AS(nothing(), std::exception))
FAILS("CHECK_THROWS_AS, another type", CHECK_THROWS_AS(refuse(), std::runtime_error))
FAILS("CHECK_THROWS_WITH, nothing", CHECK_THROWS_WITH(nothing(), "expected 2, found 3"))
FAILS("CHECK_THROWS_WITH, a part", CHECK_THROWS_WITH(refuse(), "found 3"))
FAILS("CHECK_THROWS_WITH, Contains", CHECK_THROWS_WITH(refuse(), doctest::Contains("found 4")))
FAILS("CHECK_THROWS_WITH_AS, the type", CHECK_THROWS_WITH_AS(refuse(), doctest::Contains("found"), std::runtime_error))
FAILS("CHECK_THROWS_WITH_AS, the message",
      CHECK_THROWS_WITH_AS(refuse(), doctest::Contains("found 4"), std::invalid_argument))
FAILS("CHECK_NOTHROW", CHECK_NOTHROW(refuse()))
FAILS("an exception", refuse())
FAILS("a check in another thread", std::thread([] { CHECK(two() == 3); }).join())
TEST_CASE_FIXTURE(Three, "fails: fixture") {
  CHECK(three == 4);
  went_on = true;
}
TEST_CASE_TEMPLATE("fails: template", T, char, int) {
  CHECK(sizeof(T) == 1);
  went_on = true;
}
TEST_CASE("fails: words in scope") {
  { INFO("gone"); }
  INFO("outer " << 4);
  CAPTURE(two());
  CHECK(two() == 3);
  went_on = true;
}

struct Expected {
  std::string name;
  int passed, failed;
  bool goes_on;
  std::vector<std::string> words;  // of the output
};
const std::vector<Expected> expected = {
    {"passes: everything", 1, 0, true, {"Status: SUCCESS!"}},
    {"passes: fixture", 1, 0, true, {}},
    {"passes: message", 1, 0, true, {"said 2 times"}},
    {"passes: template*", 2, 0, true, {}},
    {"PASSES*", 5, 0, true, {}},
    {"passes: fixture,passes: message", 2, 0, true, {}},
    {"no such case", 0, 0, false, {"Status: SUCCESS!"}},
    {"fails: CHECK", 0, 1, true, {"Status: FAILURE!", "verdicts_test.cpp", "two() == 3"}},
    {"fails: CHECK_FALSE", 0, 1, true, {"two() == 2"}},
    {"fails: CHECK_MESSAGE", 0, 1, true, {"because true of 5"}},
    {"fails: REQUIRE", 0, 1, false, {"two() == 3"}},
    {"fails: REQUIRE_MESSAGE", 0, 1, false, {"because of 5"}},
    {"fails: FAIL", 0, 1, false, {"because of 5"}},
    {"fails: CHECK_THROWS", 0, 1, true, {}},
    {"fails: CHECK_THROWS_AS? nothing", 0, 1, true, {}},
    {"fails: CHECK_THROWS_AS? another type", 0, 1, true, {}},
    {"fails: CHECK_THROWS_WITH? nothing", 0, 1, true, {}},
    {"fails: CHECK_THROWS_WITH? a part", 0, 1, true, {"expected 2, found 3"}},
    {"fails: CHECK_THROWS_WITH? Contains", 0, 1, true, {"expected 2, found 3"}},
    {"fails: CHECK_THROWS_WITH_AS? the type", 0, 1, true, {}},
    {"fails: CHECK_THROWS_WITH_AS? the message", 0, 1, true, {"expected 2, found 3"}},
    {"fails: CHECK_NOTHROW", 0, 1, true, {"expected 2, found 3"}},
    {"fails: an exception", 0, 1, false, {"expected 2, found 3"}},
    {"fails: a check in another thread", 0, 1, true, {}},
    {"fails: fixture", 0, 1, true, {"three == 4"}},
    {"fails: template*", 1, 1, true, {}},
    {"fails: words in scope", 0, 1, true, {"outer 4", "two() := 2"}},
    {"*", 6, 20, true, {}},  // and so each case has its line above
};

/// Runs what the arguments choose; empty if all is as expected.
std::string judge(std::vector<const char*> arguments, const Expected& one) {
  std::ostringstream output;
  std::streambuf* const before = std::cout.rdbuf(output.rdbuf());
  went_on = false;
  arguments.insert(arguments.begin(), "verdicts");
  const int status = doctest::Context(static_cast<int>(arguments.size()), arguments.data()).run();
  std::cout.rdbuf(before);
  std::string found;  // without runs of spaces: doctest lines its figures up
  for (const char c : output.str())
    if (c != ' ' || found.empty() || found.back() != ' ') found += c;
  const std::string counts = "test cases: " + std::to_string(one.passed + one.failed) + " | " +
                             std::to_string(one.passed) + " passed | " + std::to_string(one.failed) + " failed";
  std::string wrong;
  if ((status != 0) != (one.failed != 0)) wrong += "exit status " + std::to_string(status) + "; ";
  if (went_on != one.goes_on) wrong += went_on ? "it went on; " : "it stopped; ";
  if (found.find(counts) == std::string::npos) wrong += "expected " + counts + "; ";
  for (const std::string& word : one.words)
    if (found.find(word) == std::string::npos) wrong += "the output lacks " + word + "; ";
  for (const char* hidden : {"not shown", "gone"})
    if (found.find(hidden) != std::string::npos) wrong += std::string("the output has ") + hidden + "; ";
  return wrong.empty() ? "" : one.name + ": " + wrong + "\n" + found;
}

}  // namespace

int main() {
  std::string wrong;
  for (const Expected& one : expected) wrong += judge({("--test-case=" + one.name).c_str()}, one);
  wrong += judge({"--test-case-exclude=fails*"}, {"exclude", 5, 0, true, {}});
  wrong += judge({"--source-file=*/verdicts_test.cpp", "--no-skip=true", "--test-case-exclude=fails*"},
                 {"source file", 5, 0, true, {}});
  wrong += judge({"--source-file=*/other_test.cpp"}, {"another file", 0, 0, false, {}});
  std::fputs(wrong.c_str(), stdout);
  return wrong.empty() ? 0 : 1;
}
