// A complete step on one element: the rule and the operations around it.
#pragma once

#include <type_traits>

#include "rules/around.hpp"

namespace fastopt {

// Which operations of Around a step needs. Most steps need none, or only scaling and clipping. The CPU
// has a loop for each case without the unneeded operations, because in cache every operation costs
// time.
enum class GradOps : uint8_t { none, scale_clip, full };

template <class Rule, class F>
struct Update {
  Rule rule;
  Around<F> around;

  FASTOPT_HD Update(const Hyper& h, int64_t step) : rule(h, step), around(h) {}

  FASTOPT_HD GradOps grad_ops(F clip) const {
    if (around.penalizes() || around.shrinks()) return GradOps::full;
    return !around.scale_clamp.is_identity() || clip != F(1) ? GradOps::scale_clip : GradOps::none;
  }

  // The gradient that the rule is given, if any operation is needed.
  FASTOPT_HD F effective_gradient(GradOps ops, F w, F g, F clip) const {
    g = around.scale_clamp(g) * clip;
    return ops == GradOps::full ? around.penalize(g, w) : g;
  }
  FASTOPT_HD F apply_rule(F w, F g, F* s) const {
    return rule(w * around.decay_before, g, s) * around.decay_after;
  }

  FASTOPT_HD F step(GradOps ops, F w, F g, F* s, F clip) const {
    w = apply_rule(w, ops == GradOps::none ? g : effective_gradient(ops, w, g, clip), s);
    return ops == GradOps::full ? around.shrink(w) : w;
  }
};

// Storage for an Update of any type.
struct Constants {
  alignas(64) unsigned char bytes[192];
};

template <class Rule, class F>
FASTOPT_HD void prepare(const Hyper& h, int64_t step, Constants& out) {
  using U = Update<Rule, F>;
  static_assert(sizeof(U) <= sizeof(out.bytes) && std::is_trivially_copyable_v<U>);
  const U update(h, step);
  __builtin_memcpy(out.bytes, &update, sizeof(update));
}

template <class Rule, class F>
FASTOPT_HD const Update<Rule, F>& prepared(const Constants& constants) {
  return *reinterpret_cast<const Update<Rule, F>*>(constants.bytes);
}

}  // namespace fastopt
