// Not a rule but a lower bound on time: reads and writes every value that a rule with this many slots
// reads and writes, and computes nothing. A step cannot be faster. bench/ compares steps with it, on
// the step's own arrays, which it leaves unchanged.
#pragma once

#include "core/hyper.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

template <class F, int Slots>
struct Move {
  static constexpr const char* names[] = {"move0", "move1", "move2", "move3"};
  static constexpr const char* name = names[Slots];
  static constexpr int slots = Slots;
  static constexpr const char* states[] = {"a", "b", "c"};
  static constexpr const char* hyper[] = {nullptr};
  static constexpr const EpsMode* eps_modes = nullptr;

  FASTOPT_HD Move(const Hyper&, int64_t) {}

  // The values are written back unless the gradient is NaN; the compiler cannot know that it never is.
  FASTOPT_HD F operator()(F w, F g, F* s) const {
    const bool never = g != g;
    for (int k = 0; k < Slots; ++k) s[k] = never ? g : s[k];
    return never ? g : w;
  }
};

}  // namespace fastopt
