// Not a rule but a limit: every value that a rule with so many slots reads and writes is read and
// written, none is computed with. A step cannot be faster than this; bench/ measures against it.
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

  // Each slot hands its value on; what enters at the end is the parameter or the gradient.
  FASTOPT_HD F operator()(F w, F g, F* s) const {
    const F entering = magnitude(w) < magnitude(g) ? w : g;
    if constexpr (Slots == 0) return entering;
    const F leaving = s[0];
    for (int k = 0; k + 1 < Slots; ++k) s[k] = s[k + 1];
    s[Slots - 1] = entering;
    return leaving;
  }
};

}  // namespace fastopt
