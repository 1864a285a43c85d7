// Gradient descent.
#pragma once

#include "core/hyper.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

template <class F>
struct SGD {
  static constexpr const char* name = "sgd";
  static constexpr int slots = 0;
  static constexpr const char* states[] = {nullptr};
  static constexpr const char* hyper[] = {"lr", nullptr};
  static constexpr const EpsMode* eps_modes = nullptr;

  F lr;

  FASTOPT_HD explicit SGD(const Hyper& h, int64_t) : lr(F(h.lr)) {}

  FASTOPT_HD F operator()(F w, F g, F*) const { return w - lr * g; }
};

}  // namespace fastopt
