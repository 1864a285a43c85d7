// The element types fastopt stores, and the type each of them computes in.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastopt {

enum class DType : uint8_t { float16, bfloat16, float32, float64 };
inline constexpr int kDTypes = 4;

inline constexpr const char* kDTypeNames[kDTypes] = {"float16", "bfloat16", "float32", "float64"};
inline constexpr size_t kDTypeBytes[kDTypes] = {2, 2, 4, 8};

constexpr const char* name_of(DType t) { return kDTypeNames[static_cast<int>(t)]; }
constexpr size_t bytes_of(DType t) { return kDTypeBytes[static_cast<int>(t)]; }

// 16-bit storage. Only rules/half.hpp accesses the bits.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// Everything is computed in float, except for arrays of double.
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

// What a step stores: parameters and gradients in one type, state in the same or, for 16-bit
// parameters, in float32.
enum class Storage : uint8_t { float16, bfloat16, float32, float64, float16_wide, bfloat16_wide };
inline constexpr int kStorages = 6;

// What parameters and gradients are stored as.
constexpr DType stored_as(Storage s) {
  if (s == Storage::float16_wide) return DType::float16;
  if (s == Storage::bfloat16_wide) return DType::bfloat16;
  return static_cast<DType>(s);
}

}  // namespace fastopt
