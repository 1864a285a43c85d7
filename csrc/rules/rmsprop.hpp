// RMSprop. Tieleman & Hinton 2012, Coursera lecture 6e; centered and with momentum as in Graves 2013,
// arXiv:1308.0850, equations 38 to 45.
#pragma once

#include "core/hyper.hpp"
#include "rules/adagrad.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

template <class F, bool Centered, bool WithMomentum>
struct RMSprop {
  static constexpr const char* name =
      Centered ? (WithMomentum ? "rmsprop_centered_momentum" : "rmsprop_centered")
               : (WithMomentum ? "rmsprop_momentum" : "rmsprop");
  static constexpr int slots = 1 + Centered + WithMomentum;
  static constexpr const char* states[] = {"mean_sq", Centered ? "mean_grad" : "velocity", "velocity"};
  static constexpr const char* hyper[] = {
      "lr", "rho", "eps", "eps_mode", "momentum", "lr_in_velocity", nullptr};
  static constexpr EpsMode eps_modes[] = {EpsMode::outside, EpsMode::inside};

  F rho, rest, momentum, in, out;
  Denominator<F> denominator;

  FASTOPT_HD RMSprop(const Hyper& h, int64_t)
      : rho(F(h.rho)),
        rest(F(1.0 - h.rho)),
        momentum(F(h.momentum)),
        in(F(h.lr_in_velocity ? h.lr : 1.0)),
        out(F(h.lr_in_velocity ? 1.0 : h.lr)),
        denominator(h) {}

  FASTOPT_HD F operator()(F w, F g, F* s) const {
    F& mean_sq = s[0];
    mean_sq = flush_subnormal(rho * mean_sq + rest * (g * g));
    F variance = mean_sq;
    if constexpr (Centered) {
      F& mean = s[1];
      mean = flush_subnormal(rho * mean + rest * g);
      variance = maximum(mean_sq - mean * mean, F(0));  // rounding may make it negative
    }
    const F scaled = g / denominator(variance);
    if constexpr (WithMomentum) {
      F& v = s[1 + Centered];
      v = flush_subnormal(momentum * v + in * scaled);
      return w - out * v;
    } else {
      return w - (in * out) * scaled;
    }
  }
};

}  // namespace fastopt
