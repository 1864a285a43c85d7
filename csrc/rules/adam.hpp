// Adam. Kingma & Ba 2015, Algorithm 1, arXiv:1412.6980; AMSGrad: Reddi, Kale & Kumar 2018; with
// Nesterov's momentum: Dozat 2016.
#pragma once

#include "core/hyper.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

template <class F, bool Amsgrad>
struct Adam {
  static constexpr const char* name = Amsgrad ? "adam_amsgrad" : "adam";
  static constexpr int slots = 2 + Amsgrad;
  static constexpr const char* states[] = {"m", "v", "v_max"};
  static constexpr const char* hyper[] = {"lr",          "beta1",    "beta2",           "eps",
                                          "eps_root",    "eps_mode", "bias_correction", "nesterov",
                                          "amsgrad_max", nullptr};
  static constexpr EpsMode eps_modes[] = {EpsMode::outside, EpsMode::hat};

  F beta1, rest1, beta2, rest2;  // rest = 1 - beta
  F lr_m, lr_g;                  // lr with the first moment's correction; lr_g is Nesterov's share of g
  F correct_max, correct;        // the second moment's correction, before or after the maximum
  F eps_root, eps;

  FASTOPT_HD Adam(const Hyper& h, int64_t step)
      : beta1(F(h.beta1)),
        rest1(F(1.0 - h.beta1)),
        beta2(F(h.beta2)),
        rest2(F(1.0 - h.beta2)),
        eps_root(F(h.eps_root)),
        eps(F(h.eps)) {
    const bool hat = h.eps_mode == EpsMode::hat;  // "epsilon hat", end of section 2 of the paper
    const double c1 = h.bias_correction ? 1.0 - ipow(h.beta1, step) : 1.0;
    const double c1_next = h.bias_correction ? 1.0 - ipow(h.beta1, step + 1) : 1.0;
    const double c2 = h.bias_correction ? 1.0 - ipow(h.beta2, step) : 1.0;
    const double lr = hat ? h.lr * sqrt(c2) : h.lr;
    const double correction = hat ? 1.0 : 1.0 / c2;
    const bool early = Amsgrad && h.amsgrad_max == AmsgradMax::corrected;
    lr_m = F(h.nesterov ? lr * h.beta1 / c1_next : lr / c1);
    lr_g = F(h.nesterov ? lr * (1.0 - h.beta1) / c1 : 0.0);
    correct_max = F(early ? correction : 1.0);
    correct = F(early ? 1.0 : correction);
  }

  FASTOPT_HD F operator()(F w, F g, F* s) const {
    F &m = s[0], &v = s[1];
    m = flush_subnormal(beta1 * m + rest1 * g);
    v = flush_subnormal(beta2 * v + rest2 * (g * g));
    F v_hat = v;
    if constexpr (Amsgrad) v_hat = s[2] = maximum(s[2], v * correct_max);
    return w - (lr_m * m + lr_g * g) / (sqrt(v_hat * correct + eps_root) + eps);
  }
};

}  // namespace fastopt
