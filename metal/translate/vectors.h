// The few vector types that the kernels use, for compilers that have none of their own: members, indexing, and for float
// the arithmetic. METAL_ANYWHERE is what a function must say to run where the kernels run.
#pragma once

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;
typedef unsigned long ulong;

namespace metal {

template <class T, int N>
struct vec;

template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
  T x, y;
  vec() = default;
  METAL_ANYWHERE explicit vec(T a) : x(a), y(a) {}
  METAL_ANYWHERE vec(T a, T b) : x(a), y(b) {}
  METAL_ANYWHERE T& operator[](int i) { return (&x)[i]; }
  METAL_ANYWHERE const T& operator[](int i) const { return (&x)[i]; }
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
  T x, y, z;
  vec() = default;
  METAL_ANYWHERE vec(T a, T b, T c) : x(a), y(b), z(c) {}
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  T x, y, z, w;
  vec() = default;
  METAL_ANYWHERE explicit vec(T a) : x(a), y(a), z(a), w(a) {}
  METAL_ANYWHERE vec(T a, T b, T c, T d) : x(a), y(b), z(c), w(d) {}
  METAL_ANYWHERE T& operator[](int i) { return (&x)[i]; }
  METAL_ANYWHERE const T& operator[](int i) const { return (&x)[i]; }
};

typedef vec<uint, 2> uint2;
typedef vec<uint, 3> uint3;
typedef vec<uint, 4> uint4;
typedef vec<float, 2> float2;
typedef vec<float, 4> float4;

}  // namespace metal
