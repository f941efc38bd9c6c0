// The one main of foundry_tests; every other file of tests/cpp and tests/kernels only adds cases.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
