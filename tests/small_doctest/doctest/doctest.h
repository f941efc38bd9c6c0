// The part of doctest that the C++ tests use, for machines that lack it: the build takes the real one where it finds it.
// Names, options, verdicts and summary are doctest's; verdicts_test.cpp holds both to the same. What is less: a failed
// comparison shows its text but not its values; an exception inside CHECK ends the test case; CHECK_THROWS wants a
// std::exception. There is no SUBCASE, and there are no decorators.
#pragma once
#include <fnmatch.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <iostream>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace doctest {

/// Stands for any message that has this part.
struct Contains {
  explicit Contains(std::string text) : part(std::move(text)) {}
  std::string part;
};

namespace detail {

struct Case {
  std::string name;
  const char* file;
  int line;
  void (*run)();
};
inline std::vector<Case> cases;
inline const Case* running = nullptr;
inline std::atomic<size_t> checks, failures;
inline std::mutex output;

inline bool add(Case one) { return cases.push_back(std::move(one)), true; }

/// Joins what a message macro is given, by << or by commas.
class Text {
 public:
  template <class T>
  Text& operator<<(const T& value) {
    if constexpr (requires { stream_ << value; })
      stream_ << value;
    else if constexpr (std::is_enum_v<T>)
      stream_ << +static_cast<std::underlying_type_t<T>>(value);
    else
      stream_ << "{?}";
    return *this;
  }
  template <class T>
  Text& operator*(const T& value) {
    return *this << value;
  }
  template <class T>
  Text& operator,(const T& value) {
    return *this << value;
  }
  std::string str() const { return stream_.str(); }

 private:
  std::ostringstream stream_ = std::ostringstream() << std::boolalpha;
};

/// What INFO and CAPTURE have to say of the checks in their scope, put into words only when one of them fails.
class Info {
 public:
  explicit Info(std::function<std::string()> words) : words_(std::move(words)) { in_scope.push_back(this); }
  ~Info() { in_scope.pop_back(); }
  Info(const Info&) = delete;
  std::string words() const { return words_(); }
  static inline thread_local std::vector<const Info*> in_scope;

 private:
  std::function<std::string()> words_;
};

/// Thrown by REQUIRE and FAIL: ends the test case, which has failed already.
struct Stop {};

inline void pass() { ++checks; }

inline void fail(bool stop, const char* file, int line, const std::string& what, const std::string& words = "") {
  ++checks, ++failures;
  {
    const std::lock_guard lock(output);
    std::cout << file << ":" << line << ": ERROR: " << what << "\n  in: " << running->name << "\n";
    if (!words.empty()) std::cout << "  " << words << "\n";
    for (const Info* info : Info::in_scope) std::cout << "  " << info->words() << "\n";
    std::cout << std::flush;
  }
  if (stop) throw Stop{};
}

inline void say(const std::string& words) {
  const std::lock_guard lock(output);
  std::cout << words << std::endl;
}

/// A message to compare with: the whole of it, a part, or any.
struct Wanted {
  Wanted() = default;
  Wanted(const char* text) : whole(true), text(text) {}
  Wanted(const Contains& part) : text(part.part) {}
  bool fits(const std::string& found) const { return whole ? found == text : found.find(text) != std::string::npos; }
  bool whole = false;
  std::string text;
};

/// Empty if `body` throws an Error with the wanted message; what it did instead if not.
template <class Error, class Body>
std::string unlike(Body body, const Wanted& wanted = {}) {
  try {
    body();
  } catch (const Error& error) {
    return wanted.fits(error.what()) ? "" : std::string("it threw: ") + error.what();
  } catch (...) {
    return "it threw another type";
  }
  return "it threw nothing";
}

/// Empty if `body` throws nothing.
template <class Body>
std::string thrown_by(Body body) {
  try {
    body();
  } catch (const std::exception& error) {
    return std::string("it threw: ") + error.what();
  } catch (...) {
    return "it threw";
  }
  return "";
}

}  // namespace detail

class Context {
 public:
  Context(int argc, const char* const* argv) : arguments_(argv + std::min(argc, 1), argv + argc) {}
  bool shouldExit() const { return only_count_; }

  /// Runs what the filters leave, in the order of files and lines. 0 if every check of every test case passed.
  int run() {
    using namespace detail;
    for (const std::string& argument : arguments_)
      if (!take(argument)) return std::cout << "[doctest] unknown option: " << argument << std::endl, 1;
    std::stable_sort(cases.begin(), cases.end(), [](const Case& a, const Case& b) {
      return std::pair(std::string_view(a.file), a.line) < std::pair(std::string_view(b.file), b.line);
    });
    checks = failures = 0;
    size_t chosen = 0, failed = 0;
    for (const Case& one : cases) {
      if ((!files_.empty() && !matches(files_, one.file)) || (!names_.empty() && !matches(names_, one.name)) ||
          matches(excluded_, one.name))
        continue;
      ++chosen;
      if (!only_count_ && !passes(one)) ++failed;
    }
    if (only_count_)
      return std::cout << "[doctest] unskipped test cases passing the current filters: " << chosen << std::endl, 0;
    std::cout << "[doctest] test cases: " << chosen << " | " << chosen - failed << " passed | " << failed
              << " failed | " << cases.size() - chosen << " skipped\n[doctest] assertions: " << checks << " | "
              << checks - failures << " passed | " << failures
              << " failed |\n[doctest] Status: " << (failed == 0 ? "SUCCESS!" : "FAILURE!") << std::endl;
    return failed == 0 ? 0 : 1;
  }

 private:
  static bool passes(const detail::Case& one) {
    const size_t before = detail::failures;
    detail::running = &one;
    try {
      one.run();
    } catch (const detail::Stop&) {
    } catch (const std::exception& error) {
      detail::fail(false, one.file, one.line, std::string("the test case threw: ") + error.what());
    } catch (...) {
      detail::fail(false, one.file, one.line, "the test case threw");
    }
    return detail::failures == before;
  }

  /// Patterns are of a shell's kind, apart by commas, and know no case.
  static bool matches(const std::string& patterns, const std::string& text) {
    std::istringstream list(patterns);
    for (std::string pattern; std::getline(list, pattern, ',');)
      if (fnmatch(pattern.c_str(), text.c_str(), FNM_CASEFOLD | FNM_NOESCAPE) == 0) return true;
    return false;
  }

  bool take(const std::string& argument) {
    const std::string name = argument.substr(0, argument.find('='));
    const std::string value = argument.substr(std::min(argument.size(), name.size() + 1));
    if (name == "--source-file") return files_ = value, true;
    if (name == "--test-case") return names_ = value, true;
    if (name == "--test-case-exclude") return excluded_ = value, true;
    if (name == "--count") return only_count_ = true;
    return name == "--no-skip";  // nothing is skipped
  }

  std::vector<std::string> arguments_;
  std::string files_, names_, excluded_;
  bool only_count_ = false;
};

}  // namespace doctest

// A name of its own for each use; the macros below hand it on, so that it is made once.
#define DOCTEST_JOIN_AGAIN(a, b) a##b
#define DOCTEST_JOIN(a, b) DOCTEST_JOIN_AGAIN(a, b)
#define DOCTEST_NAME DOCTEST_JOIN(doctest_name_, __COUNTER__)

#define DOCTEST_ADD(name, function) \
  [[maybe_unused]] static const bool DOCTEST_NAME = ::doctest::detail::add({name, __FILE__, __LINE__, function});
#define DOCTEST_CASE(function, name) \
  static void function();            \
  DOCTEST_ADD(name, function)        \
  static void function()
#define DOCTEST_FIXTURE(Type, Fixture, name) \
  namespace {                                \
  struct Type : Fixture {                    \
    void run();                              \
  };                                         \
  }                                          \
  DOCTEST_ADD(name, [] { Type().run(); })    \
  void Type::run()
#define DOCTEST_TEMPLATE(function, name, T, ...)                                     \
  template <class T>                                                                 \
  static void function();                                                            \
  [[maybe_unused]] static const bool DOCTEST_NAME = []<class... U>() {               \
    return (::doctest::detail::add({name, __FILE__, __LINE__, function<U>}) && ...); \
  }.template operator()<__VA_ARGS__>();                                              \
  template <class T>                                                                 \
  static void function()
#define TEST_CASE(name) DOCTEST_CASE(DOCTEST_NAME, name)
#define TEST_CASE_FIXTURE(Fixture, name) DOCTEST_FIXTURE(DOCTEST_NAME, Fixture, name)
#define TEST_CASE_TEMPLATE(name, T, ...) DOCTEST_TEMPLATE(DOCTEST_NAME, name, T, __VA_ARGS__)

#define DOCTEST_WORDS(...) (::doctest::detail::Text() * __VA_ARGS__).str()
#define DOCTEST_CHECK(stop, what, ok, ...) \
  ((ok) ? ::doctest::detail::pass() : ::doctest::detail::fail(stop, __FILE__, __LINE__, what, __VA_ARGS__))
#define CHECK(...) DOCTEST_CHECK(false, "CHECK( " #__VA_ARGS__ " )", (__VA_ARGS__), "")
#define CHECK_FALSE(...) DOCTEST_CHECK(false, "CHECK_FALSE( " #__VA_ARGS__ " )", !(__VA_ARGS__), "")
#define CHECK_MESSAGE(ok, ...) DOCTEST_CHECK(false, "CHECK( " #ok " )", ok, DOCTEST_WORDS(__VA_ARGS__))
#define REQUIRE(...) DOCTEST_CHECK(true, "REQUIRE( " #__VA_ARGS__ " )", (__VA_ARGS__), "")
#define REQUIRE_MESSAGE(ok, ...) DOCTEST_CHECK(true, "REQUIRE( " #ok " )", ok, DOCTEST_WORDS(__VA_ARGS__))
#define FAIL(...) ::doctest::detail::fail(true, __FILE__, __LINE__, "FAIL", DOCTEST_WORDS(__VA_ARGS__))

#define DOCTEST_BECAUSE(what, because)                                    \
  do {                                                                    \
    const std::string doctest_because = because;                          \
    DOCTEST_CHECK(false, what, doctest_because.empty(), doctest_because); \
  } while (false)
#define DOCTEST_THROWS(what, expression, Error, ...) \
  DOCTEST_BECAUSE(what, (::doctest::detail::unlike<Error>([&] { expression; }, ::doctest::detail::Wanted(__VA_ARGS__))))
#define CHECK_THROWS(expression) DOCTEST_THROWS("CHECK_THROWS( " #expression " )", expression, std::exception)
#define CHECK_THROWS_AS(expression, Error) \
  DOCTEST_THROWS("CHECK_THROWS_AS( " #expression ", " #Error " )", expression, Error)
#define CHECK_THROWS_WITH(expression, wanted) \
  DOCTEST_THROWS("CHECK_THROWS_WITH( " #expression ", " #wanted " )", expression, std::exception, wanted)
#define CHECK_THROWS_WITH_AS(expression, wanted, Error) \
  DOCTEST_THROWS("CHECK_THROWS_WITH_AS( " #expression ", " #wanted ", " #Error " )", expression, Error, wanted)

#define CHECK_NOTHROW(expression) \
  DOCTEST_BECAUSE("CHECK_NOTHROW( " #expression " )", ::doctest::detail::thrown_by([&] { expression; }))

#define INFO(...) const ::doctest::detail::Info DOCTEST_NAME([&] { return DOCTEST_WORDS(__VA_ARGS__); })
#define CAPTURE(value) INFO(#value " := ", value)
#define MESSAGE(...) ::doctest::detail::say(DOCTEST_WORDS(__VA_ARGS__))

#ifdef DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
int main(int argc, char** argv) { return doctest::Context(argc, argv).run(); }
#endif
