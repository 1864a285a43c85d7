// Not a rule but a limit: every value that a rule with so many slots reads and writes is read and
// written, none is computed with. A step cannot be faster than this; bench/ measures against it, on the
// step's own arrays, which it leaves as they are.
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

  // What the gradient's NaN would overwrite is written back; the compiler cannot know that there is
  // none.
  FASTOPT_HD F operator()(F w, F g, F* s) const {
    const bool never = g != g;
    for (int k = 0; k < Slots; ++k) s[k] = never ? g : s[k];
    return never ? g : w;
  }
};

}  // namespace fastopt
