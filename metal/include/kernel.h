// What every .metal file begins with. `instantiate_kernel(name, kernel, arguments...)` makes a template's instance a
// function of the library; compilers other than Apple's define it, and UNROLL, their own way.
#pragma once
#include <metal_simdgroup_matrix>
#include <metal_stdlib>

#include "launch.h"
#include "params.h"
#include "quant_blocks.h"

// A library may be of one part of a file's instances, so that the first token does not wait for all of them. Where
// FOUNDRY_PART is defined, of_part(name, instances) is nothing, but for the part whose FOUNDRY_PART_name is defined, as
// a comma. Else all are there.
#ifdef FOUNDRY_PART
#define FOUNDRY_SECOND(a, b, ...) b
#define FOUNDRY_IS(...) FOUNDRY_SECOND(__VA_ARGS__, 0, 0)
#define FOUNDRY_JOINED(a, b) a##b
#define FOUNDRY_JOIN(a, b) FOUNDRY_JOINED(a, b)
#define FOUNDRY_IF_1(...) __VA_ARGS__
#define FOUNDRY_IF_0(...)
#define of_part(name, ...) FOUNDRY_JOIN(FOUNDRY_IF_, FOUNDRY_IS(FOUNDRY_PART_##name 1))(__VA_ARGS__)
#else
#define of_part(name, ...) __VA_ARGS__
#endif

#ifndef instantiate_kernel
#pragma STDC FP_CONTRACT OFF
#if __METAL_VERSION__ >= 320  // older compilers do not know it for certain
#pragma METAL fp contract(off)
#endif
// A lane has 128 registers, in which arrays of the kernels must find room.
constant constexpr bool kFewRegisters = true;
// Loops over arrays that shall be registers: an index that is no constant sends an array to memory (registers.py
// looks).
#define UNROLL _Pragma("clang loop unroll(full)")
#define instantiate_kernel(name, func, ...) \
  template [[host_name(name)]] [[kernel]] decltype(func<__VA_ARGS__>) func<__VA_ARGS__>;
#endif

// Where a kernel that reads weights first wants what other launches have written: only GPUs on which a launch may begin
// before those ahead of it have ended have to wait. A file has it in all of its kernels or in none, which wait as they
// begin.
#ifndef WAIT_FOR_INPUTS
#define WAIT_FOR_INPUTS()
#endif
