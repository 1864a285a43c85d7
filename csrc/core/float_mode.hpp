// Sets the default IEEE floating-point mode while an engine computes on the host. A library built with
// -ffast-math, or torch.set_flush_denormal, may have made this thread flush denormals or round
// differently, and the bits would then depend on the order of imports.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#if __FINITE_MATH_ONLY__ || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__)
#error "fastopt needs IEEE 754 arithmetic; compile it without fast math"
#endif

namespace fastopt {

class IeeeMode {
 public:
  IeeeMode() : saved_(get()) { set(kDefault); }
  ~IeeeMode() { set(saved_); }
  IeeeMode(const IeeeMode&) = delete;
  IeeeMode& operator=(const IeeeMode&) = delete;

 private:
#if defined(__x86_64__)
  using Word = uint32_t;
  static constexpr Word kDefault = 0x1f80;  // all exceptions masked, to nearest, no flushing
  static Word get() { return _mm_getcsr(); }
  static void set(Word w) { _mm_setcsr(w); }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static constexpr Word kDefault = 0;
  static Word get() {
    Word w;
    asm volatile("mrs %0, fpcr" : "=r"(w));
    return w;
  }
  static void set(Word w) { asm volatile("msr fpcr, %0" ::"r"(w)); }
#else
#error "fastopt supports x86-64 and AArch64"
#endif

  Word saved_;
};

}  // namespace fastopt
