// -*- C++ -*-
// The wide tiles of wide_tile.h on Hopper: wgmma (PTX ISA, "Asynchronous warpgroup level matrix instructions"). Operands
// lie in shared memory with the 128-byte swizzle, which is wide_tile.h's order.
#pragma once
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define METAL_WIDE_TILES

namespace metal {

template <uint kColumns>
struct WideSum {
  float x[kColumns / 2];
};

METAL_WORD void wide_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
METAL_WORD void wide_written() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
METAL_WORD void wide_begun() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Groups of eight rows are 1024 bytes apart.
METAL_WORD ulong wide_operand(const uint4* at, uint part) {
  ulong address;
  asm("cvta.to.shared.u64 %0, %1;" : "=l"(address) : "l"(at));
  return ((address + part * 32) & 0x3ffff) >> 4 | 1ul << 16 | 64ul << 32 | 1ul << 62;
}
/// The compiler takes reads of the sum for later than the products.
template <uint kBatches, uint kColumns>
METAL_WORD void wide_done(WideSum<kColumns>& sum) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kBatches) : "memory");
#pragma unroll
  for (uint i = 0; i < kColumns / 2; ++i) asm volatile("" : "+f"(sum.x[i])::"memory");
}

template <uint kColumns>
METAL_WORD void wide_multiply_add(WideSum<kColumns>& sum, const uint4* left, const uint4* right, uint part, bool fresh,
                                  uint, uint) {
  const ulong a = wide_operand(left, part), b = wide_operand(right, part);
  const int adds = fresh ? 0 : 1;
  float (&x)[kColumns / 2] = sum.x;
  if constexpr (kColumns == 128) {
    asm volatile(
        "{.reg .pred p; setp.ne.s32 p, %66, 0;"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
        "}, %64, %65, p, 1, 1, 0, 0;}"
        : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3]), "+f"(x[4]), "+f"(x[5]), "+f"(x[6]), "+f"(x[7]), "+f"(x[8]),
          "+f"(x[9]), "+f"(x[10]), "+f"(x[11]), "+f"(x[12]), "+f"(x[13]), "+f"(x[14]), "+f"(x[15]), "+f"(x[16]),
          "+f"(x[17]), "+f"(x[18]), "+f"(x[19]), "+f"(x[20]), "+f"(x[21]), "+f"(x[22]), "+f"(x[23]), "+f"(x[24]),
          "+f"(x[25]), "+f"(x[26]), "+f"(x[27]), "+f"(x[28]), "+f"(x[29]), "+f"(x[30]), "+f"(x[31]), "+f"(x[32]),
          "+f"(x[33]), "+f"(x[34]), "+f"(x[35]), "+f"(x[36]), "+f"(x[37]), "+f"(x[38]), "+f"(x[39]), "+f"(x[40]),
          "+f"(x[41]), "+f"(x[42]), "+f"(x[43]), "+f"(x[44]), "+f"(x[45]), "+f"(x[46]), "+f"(x[47]), "+f"(x[48]),
          "+f"(x[49]), "+f"(x[50]), "+f"(x[51]), "+f"(x[52]), "+f"(x[53]), "+f"(x[54]), "+f"(x[55]), "+f"(x[56]),
          "+f"(x[57]), "+f"(x[58]), "+f"(x[59]), "+f"(x[60]), "+f"(x[61]), "+f"(x[62]), "+f"(x[63])
        : "l"(a), "l"(b), "r"(adds)
        : "memory");
  } else {
    static_assert(kColumns == 64);
    asm volatile(
        "{.reg .pred p; setp.ne.s32 p, %34, 0;"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
        "}, %32, %33, p, 1, 1, 0, 0;}"
        : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3]), "+f"(x[4]), "+f"(x[5]), "+f"(x[6]), "+f"(x[7]), "+f"(x[8]),
          "+f"(x[9]), "+f"(x[10]), "+f"(x[11]), "+f"(x[12]), "+f"(x[13]), "+f"(x[14]), "+f"(x[15]), "+f"(x[16]),
          "+f"(x[17]), "+f"(x[18]), "+f"(x[19]), "+f"(x[20]), "+f"(x[21]), "+f"(x[22]), "+f"(x[23]), "+f"(x[24]),
          "+f"(x[25]), "+f"(x[26]), "+f"(x[27]), "+f"(x[28]), "+f"(x[29]), "+f"(x[30]), "+f"(x[31])
        : "l"(a), "l"(b), "r"(adds)
        : "memory");
  }
}

}  // namespace metal
#endif
