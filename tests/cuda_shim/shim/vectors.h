// CUDA's built-in vector types, aligned as on a device.
#pragma once

#define SHIM_VECTOR_2(name, T)                       \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; }; \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }

#define SHIM_VECTOR_4(name, T)                                                       \
  struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

SHIM_VECTOR_2(uchar, unsigned char)
SHIM_VECTOR_4(uchar, unsigned char)
SHIM_VECTOR_2(ushort, unsigned short)
SHIM_VECTOR_4(ushort, unsigned short)
SHIM_VECTOR_2(int, int)
SHIM_VECTOR_4(int, int)
SHIM_VECTOR_2(uint, unsigned)
SHIM_VECTOR_4(uint, unsigned)
SHIM_VECTOR_2(longlong, long long)
SHIM_VECTOR_2(ulonglong, unsigned long long)
SHIM_VECTOR_2(float, float)
SHIM_VECTOR_4(float, float)
SHIM_VECTOR_2(double, double)

#undef SHIM_VECTOR_2
#undef SHIM_VECTOR_4

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
