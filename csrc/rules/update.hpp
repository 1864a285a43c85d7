// A whole step on one element: what stands around the rule, and the rule.
#pragma once

#include "rules/around.hpp"

namespace fastopt {

// How much of Around is at work. Most steps need none of it, or a clip; what is not needed is compiled
// out, for in cache every operation shows.
enum class Wrap : uint8_t { none, scaled, full };

template <class Rule, class F>
struct Update {
  Rule rule;
  Around<F> around;

  FASTOPT_HD Update(const Hyper& h, int64_t step) : rule(h, step), around(h) {}

  FASTOPT_HD Wrap wrap(F clip) const {
    if (around.penalises() || around.shrinks()) return Wrap::full;
    return around.shape.acts() || clip != F(1) ? Wrap::scaled : Wrap::none;
  }

  template <Wrap wrap>
  FASTOPT_HD F step(F w, F g, F* s, F clip) const {
    if constexpr (wrap != Wrap::none) g = around.shape(g) * clip;
    if constexpr (wrap == Wrap::full) g = around.penalise(g, w);
    w = rule(w * around.decay_before, g, s) * around.decay_after;
    if constexpr (wrap == Wrap::full) w = around.shrink(w);
    return w;
  }
};

}  // namespace fastopt
