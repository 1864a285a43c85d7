// A whole step on one element: what stands around the rule, and the rule.
#pragma once

#include <type_traits>

#include "rules/around.hpp"

namespace fastopt {

// How much of Around is at work. Most steps need none of it, or a clip. The CPU has a loop for each,
// with what is not needed compiled out, for in cache every operation shows.
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

  FASTOPT_HD F step(Wrap wrap, F w, F g, F* s, F clip) const {
    if (wrap != Wrap::none) g = around.shape(g) * clip;
    if (wrap == Wrap::full) g = around.penalise(g, w);
    w = rule(w * around.decay_before, g, s) * around.decay_after;
    if (wrap == Wrap::full) w = around.shrink(w);
    return w;
  }
};

// An Update of whatever type, in memory.
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
