// The list of all rules. To add one: a header, its name here, a class in python/fastopt/optim/ and a
// function in python/fastopt/functional.py, and a float64 function in tests/reference.py; a test fails
// if one is missing.
#pragma once

#include "rules/adagrad.hpp"
#include "rules/adam.hpp"
#include "rules/momentum.hpp"
#include "rules/move.hpp"
#include "rules/rmsprop.hpp"
#include "rules/sgd.hpp"

namespace fastopt {

// clang-format off
template <class F> using RMSpropPlain = RMSprop<F, false, false>;
template <class F> using RMSpropMomentum = RMSprop<F, false, true>;
template <class F> using RMSpropCentered = RMSprop<F, true, false>;
template <class F> using RMSpropCenteredMomentum = RMSprop<F, true, true>;
template <class F> using AdamPlain = Adam<F, false>;
template <class F> using AdamAmsgrad = Adam<F, true>;
template <class F> using Move0 = Move<F, 0>;
template <class F> using Move1 = Move<F, 1>;
template <class F> using Move2 = Move<F, 2>;
template <class F> using Move3 = Move<F, 3>;
// clang-format on

template <template <class> class... R>
struct List {
  static constexpr int size = sizeof...(R);
};

using RuleList = List<SGD, Momentum, Nesterov, AdaGrad, RMSpropPlain, RMSpropMomentum, RMSpropCentered,
                      RMSpropCenteredMomentum, AdamPlain, AdamAmsgrad, Move0, Move1, Move2, Move3>;

// The properties of a rule that the other layers use.
struct RuleInfo {
  const char* name;
  int slots;
  const char* const* states;  // the first `slots` names belong to this rule
  const char* const* hyper;   // ends with nullptr
  const EpsMode* eps_modes;   // the two ways to add epsilon, or null
};

template <template <class> class R>
constexpr RuleInfo info_of() {
  return {R<float>::name, R<float>::slots, R<float>::states, R<float>::hyper, R<float>::eps_modes};
}

template <class L>
struct InfoTable;
template <template <class> class... R>
struct InfoTable<List<R...>> {
  static constexpr RuleInfo rules[] = {info_of<R>()...};
};

}  // namespace fastopt
