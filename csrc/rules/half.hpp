// float16 and bfloat16, widened to float and rounded back to nearest even. Only integer and IEEE
// operations without branches, so that compilers vectorize them and all devices agree.
#pragma once

#include "core/dtype.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

FASTOPT_HD uint32_t bits_of(float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  return u;
}
FASTOPT_HD float float_of(uint32_t u) {
  float x;
  __builtin_memcpy(&x, &u, 4);
  return x;
}

FASTOPT_HD float widen(float x) { return x; }
FASTOPT_HD double widen(double x) { return x; }
FASTOPT_HD float widen(BFloat16 x) { return float_of(uint32_t(x.bits) << 16); }

// In a float, exponent and mantissa are 13 bits higher than in a half, and the exponent's bias is 112
// larger. A normal number is rebiased by an addition. A subnormal number is built with an exponent of
// 2^-14, which is then subtracted; this is exact and involves no float denormal.
FASTOPT_HD float widen(Half x) {
#ifdef __CUDA_ARCH__  // one instruction, and exact
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
#else
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t body = uint32_t(x.bits & 0x7fffu) << 13;
  const uint32_t top = body & 0x0f800000u;  // the exponent
  const uint32_t normal = body + (112u << 23);
  const uint32_t special = body + (224u << 23);  // inf and NaN: exponent 31 becomes 255
  const uint32_t subnormal = bits_of(float_of(body + (113u << 23)) - float_of(113u << 23));
  const uint32_t finite = top == 0 ? subnormal : normal;
  return float_of(sign | (top == 0x0f800000u ? special : finite));
#endif
}

template <class P>
FASTOPT_HD P narrow(Compute<P> x);

template <>
FASTOPT_HD float narrow<float>(float x) {
  return x;
}
template <>
FASTOPT_HD double narrow<double>(double x) {
  return x;
}

// x, whose bits are u, with the nearest bfloat16 in the upper half of the result. Floats and words are
// scalars or vectors of them.
template <class F, class U>
FASTOPT_HD U round_to_bfloat16(const F& x, const U& u) {
  const U rounded = u + 0x7fffu + ((u >> 16) & 1u);
  const U quiet = u | 0x00400000u;
  return x != x ? quiet : rounded;
}

template <>
FASTOPT_HD BFloat16 narrow<BFloat16>(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800  // one instruction with the same rounding
  BFloat16 stored;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(stored.bits) : "f"(x));
  return stored;
#else
  return {uint16_t(round_to_bfloat16(x, bits_of(x)) >> 16)};
#endif
}

// Normal results are rounded by adding half an ulp less one, plus one if the kept part is odd.
// Subnormal results are added to 0.5, whose ulp is the smallest half: the addition rounds them.
template <>
FASTOPT_HD Half narrow<Half>(float x) {
#ifdef __CUDA_ARCH__  // one instruction with the same rounding, for subnormal results as well
  Half stored;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(stored.bits) : "f"(x));
  return stored;
#else
  const uint32_t u = bits_of(x);
  const uint32_t body = u & 0x7fffffffu;
  const uint32_t normal = (body - (112u << 23) + 0xfffu + ((u >> 13) & 1u)) >> 13;
  const uint32_t subnormal = bits_of(float_of(body) + 0.5f) - bits_of(0.5f);
  const uint32_t nan = 0x7e00u | ((body >> 13) & 0x3ffu);
  const uint32_t finite = body < (113u << 23) ? subnormal : normal;
  const uint32_t large = body > 0x7f800000u ? nan : 0x7c00u;  // from 65520 up: inf
  return {uint16_t(((u >> 16) & 0x8000u) | (body >= 0x477ff000u ? large : finite))};
#endif
}

}  // namespace fastopt
