// What every .metal file begins with. `instantiate_kernel(name, kernel, arguments...)` makes a template's instance a function of
// the library; compilers other than Apple's define it their own way.
#pragma once
#include <metal_simdgroup_matrix>
#include <metal_stdlib>

#include "launch.h"
#include "params.h"
#include "quant_blocks.h"

#ifndef instantiate_kernel
#pragma STDC FP_CONTRACT OFF
#if __METAL_VERSION__ >= 320  // older compilers do not know it for certain
#pragma METAL fp contract(off)
#endif
#define instantiate_kernel(name, func, ...) \
  template [[host_name(name)]] [[kernel]] decltype(func<__VA_ARGS__>) func<__VA_ARGS__>;
#endif
