// What stands around any rule, in this order: unscale, clip by value, clip by norm, L1 and L2; the
// rule; decay. Each piece is one line here and knows nothing of the rule it wraps.
#pragma once

#include "core/hyper.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

// What a gradient is multiplied by before anything else looks at it.
FASTOPT_HD double gradient_factor(const Hyper& h) { return (h.maximize ? -1.0 : 1.0) / h.grad_scale; }

// A gradient unscaled, then limited in size.
template <class F>
struct ScaleClamp {
  F scale, limit;

  FASTOPT_HD ScaleClamp(double scale, double limit) : scale(F(scale)), limit(F(limit)) {}
  FASTOPT_HD bool is_identity() const { return scale == F(1) && limit == F(kNoLimit); }
  FASTOPT_HD F operator()(F g) const { return clamp(g * scale, limit); }
};

template <class F>
struct Around {
  ScaleClamp<F> scale_clamp;
  F l1, l2;  // penalties added to the gradient
  F decay_before, decay_after;
  F threshold;  // of proximal L1

  FASTOPT_HD explicit Around(const Hyper& h)
      : scale_clamp(gradient_factor(h), h.clip_value),
        l1(F(h.l1_mode == L1Mode::subgradient ? h.l1 : 0.0)),
        l2(F(h.l2)),
        threshold(F(h.l1_mode == L1Mode::proximal ? h.lr * h.l1 : 0.0)) {
    const double rate = h.decay_scale == DecayScale::lr ? h.lr : 1.0;
    const F decay = F(1.0 - rate * h.weight_decay);
    decay_before = h.decay_order == DecayOrder::before ? decay : F(1);
    decay_after = h.decay_order == DecayOrder::after ? decay : F(1);
  }

  FASTOPT_HD bool penalizes() const { return l1 != F(0) || l2 != F(0); }
  FASTOPT_HD bool shrinks() const { return threshold != F(0); }

  // A penalty that is off adds nothing even to an infinite parameter.
  FASTOPT_HD F penalize(F g, F w) const { return (g + l1 * sign(w)) + (l2 != F(0) ? l2 * w : F(0)); }

  // The soft threshold, the proximal map of threshold * |w|: what is small becomes exactly zero.
  FASTOPT_HD F shrink(F w) const {
    const F rest = abs(w) - threshold;
    return rest <= F(0) ? F(0) : (w < F(0) ? -rest : rest);
  }
};

// The coefficient that brings a gradient of this norm down to max_norm. With clip_eps 0:
// max_norm / norm if norm > max_norm, else 1. Compared before it is divided: 0 / 0 and inf / inf are
// within the limit. A NaN goes on into the gradient.
FASTOPT_HD double clip_coefficient(double norm, double max_norm, double clip_eps) {
  const double size = norm + clip_eps;
  return size <= max_norm ? 1.0 : max_norm / size;
}

}  // namespace fastopt
