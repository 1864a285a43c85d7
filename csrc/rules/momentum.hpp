// Gradient descent with momentum (Polyak 1964), and Nesterov's variant with the gradient evaluated at
// the parameters themselves (Sutskever et al. 2013, section 2). Nesterov's original form, with the
// gradient evaluated at the look-ahead point, has the same step as Momentum; only the point at which
// the caller differentiates is different.
#pragma once

#include "core/hyper.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

// v = momentum * v + in * g, where lr is part of `in` or, as in torch, of `out`.
template <class F>
struct Velocity {
  F momentum, in, out;

  FASTOPT_HD Velocity(const Hyper& h, int64_t step)
      : momentum(F(h.momentum)),
        in(F(dampened(h, step) * (h.lr_in_velocity ? h.lr : 1.0))),
        out(F(h.lr_in_velocity ? 1.0 : h.lr)) {}

  // By default the first velocity is the gradient itself, regardless of dampening.
  static FASTOPT_HD double dampened(const Hyper& h, int64_t step) {
    const bool whole = step == 1 && h.first_step == FirstStep::grad;
    return whole ? 1.0 : 1.0 - h.dampening;
  }

  FASTOPT_HD F operator()(F v, F g) const { return flush_subnormal(momentum * v + in * g); }
};

template <class F>
struct Momentum {
  static constexpr const char* name = "momentum";
  static constexpr int slots = 1;
  static constexpr const char* states[] = {"velocity"};
  static constexpr const char* hyper[] = {"lr",         "momentum",       "dampening",
                                          "first_step", "lr_in_velocity", nullptr};
  static constexpr const EpsMode* eps_modes = nullptr;

  Velocity<F> velocity;

  FASTOPT_HD Momentum(const Hyper& h, int64_t step) : velocity(h, step) {}

  FASTOPT_HD F operator()(F w, F g, F* s) const {
    F& v = s[0];
    v = velocity(v, g);
    return w - velocity.out * v;
  }
};

template <class F>
struct Nesterov {
  static constexpr const char* name = "nesterov";
  static constexpr int slots = 1;
  static constexpr const char* states[] = {"velocity"};
  static constexpr const char* hyper[] = {"lr",         "momentum",       "dampening",
                                          "first_step", "lr_in_velocity", nullptr};
  static constexpr const EpsMode* eps_modes = nullptr;

  Velocity<F> velocity;
  F lr;

  FASTOPT_HD Nesterov(const Hyper& h, int64_t step) : velocity(h, step), lr(F(h.lr)) {}

  FASTOPT_HD F operator()(F w, F g, F* s) const {
    F& v = s[0];
    v = velocity(v, g);
    return w - (velocity.out * (velocity.momentum * v) + lr * g);
  }
};

}  // namespace fastopt
