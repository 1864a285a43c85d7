// AdaGrad. Duchi, Hazan & Singer 2011, JMLR 12, figure 1 with a diagonal matrix.
#pragma once

#include "core/hyper.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

// sqrt(x) with epsilon outside or inside the root.
template <class F>
struct Denominator {
  F inside, outside;

  FASTOPT_HD explicit Denominator(const Hyper& h)
      : inside(h.eps_mode == EpsMode::inside ? F(h.eps) : F(0)),
        outside(h.eps_mode == EpsMode::inside ? F(0) : F(h.eps)) {}

  FASTOPT_HD F operator()(F x) const { return sqrt(x + inside) + outside; }
};

template <class F>
struct AdaGrad {
  static constexpr const char* name = "adagrad";
  static constexpr int slots = 1;
  static constexpr const char* states[] = {"sum_sq"};
  static constexpr const char* hyper[] = {"lr", "eps", "eps_mode", "lr_decay", nullptr};
  static constexpr EpsMode eps_modes[] = {EpsMode::outside, EpsMode::inside};

  F lr;
  Denominator<F> denominator;

  FASTOPT_HD AdaGrad(const Hyper& h, int64_t step)
      : lr(F(h.lr / (1.0 + double(step - 1) * h.lr_decay))), denominator(h) {}

  FASTOPT_HD F operator()(F w, F g, F* s) const {
    F& sum_sq = s[0];
    sum_sq = flush_subnormal(sum_sq + g * g);
    return w - lr * (g / denominator(sum_sq));
  }
};

}  // namespace fastopt
