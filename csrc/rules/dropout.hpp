// Dropout. Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov 2014; whole channels: Tompson et
// al. 2015, arXiv:1411.4280; alpha dropout: Klambauer, Unterthiner, Mayr & Hochreiter 2017,
// arXiv:1706.02515.
//
// Element i is dropped if its word, number i mod 4 of philox_words(seed, offset, i / 4), is below a
// threshold. The result is selected: multiplying by a mask would turn a dropped infinity into NaN.
#pragma once

#include "core/dropout.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

inline constexpr uint64_t kDropNone = 0;
inline constexpr uint64_t kDropAll = uint64_t(1) << 32;

// The limit of SELU for large negative inputs, -lambda * alpha: the value of a dropped unit, before
// alpha dropout shifts and scales it.
inline constexpr double kSeluFloor = -1.7580993408473766;

// p * 2**32, rounded to nearest. Both the product and the comparison are exact.
FASTOPT_HD uint64_t drop_threshold(double p) {
  const double words = p * double(kDropAll);
  const uint64_t whole = uint64_t(words);
  return whole + (words - double(whole) >= 0.5);
}

// From the options, in double: y = keep ? x * scale + shift : dropped.
struct DropoutConstants {
  uint64_t threshold = kDropNone;
  double scale = 1.0;
  double shift = -0.0;  // changes no value: 0.0 would change the sign of -0.0
  double dropped = 0.0;

  FASTOPT_HD DropoutConstants(double p, const DropoutOptions& o) {
    const double keep = 1.0 - p;
    if (!o.training) {
      if (o.scaling == Scaling::inverted) return;
      scale = keep;
      threshold = keep == 0.0 ? kDropAll : kDropNone;  // exact, unlike 0 * inf
      return;
    }
    threshold = drop_threshold(p);
    if (p == 0.0 || p == 1.0) return;
    if (o.alpha) {  // section 3 there: preserves mean 0 and variance 1
      scale = 1.0 / sqrt(keep * (1.0 + p * (kSeluFloor * kSeluFloor)));
      if (o.backward) return;
      shift = -scale * p * kSeluFloor;
      dropped = scale * kSeluFloor + shift;
    } else if (o.scaling == Scaling::inverted) {
      scale = 1.0 / keep;
    }
  }
};

template <class F>
struct Dropout {
  F scale, shift, dropped;

  FASTOPT_HD explicit Dropout(const DropoutConstants& c)
      : scale(F(c.scale)), shift(F(c.shift)), dropped(F(c.dropped)) {}

  FASTOPT_HD F operator()(F x, bool keep) const { return keep ? x * scale + shift : dropped; }
};

}  // namespace fastopt
