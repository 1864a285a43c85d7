// The operations around a rule, in this order: unscale, clip by value, clip by norm, L1 and L2; the
// rule; decay. Each is one line here and independent of the rule.
#pragma once

#include "core/hyper.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

// The factor that a gradient is multiplied by before any other operation.
FASTOPT_HD double gradient_factor(const Hyper& h) { return (h.maximize ? -1.0 : 1.0) / h.grad_scale; }

// Unscales a gradient, then limits its absolute value.
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

  // A disabled penalty adds nothing, even if the parameter is infinite.
  FASTOPT_HD F penalize(F g, F w) const { return (g + l1 * sign(w)) + (l2 != F(0) ? l2 * w : F(0)); }

  // Soft thresholding, the proximal map of threshold * |w|: small values become exactly zero.
  FASTOPT_HD F shrink(F w) const {
    const F rest = abs(w) - threshold;
    return rest <= F(0) ? F(0) : (w < F(0) ? -rest : rest);
  }
};

// The coefficient that reduces a gradient of this norm to max_norm. With clip_eps 0: max_norm / norm if
// norm > max_norm, else 1. The comparison comes before the division, so that 0 / 0 and inf / inf count
// as within the limit. A NaN is propagated to the gradient.
FASTOPT_HD double clip_coefficient(double norm, double max_norm, double clip_eps) {
  const double size = norm + clip_eps;
  return size <= max_norm ? 1.0 : max_norm / size;
}

}  // namespace fastopt
