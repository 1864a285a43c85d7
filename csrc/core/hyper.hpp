// The hyper-parameters of a step: those of the rules, and those that apply to every rule. They are
// plain doubles and enums, as given by the user; a rule computes its constants from those that it
// needs.
#pragma once

#include <cstdint>
#include <limits>

namespace fastopt {

enum class EpsMode : uint8_t { outside, inside, hat };  // where epsilon is added
enum class FirstStep : uint8_t { grad, zero };          // the first velocity
enum class AmsgradMax : uint8_t { raw, corrected };     // which v the maximum is taken over
enum class L1Mode : uint8_t { subgradient, proximal };  // before the rule, or after it
enum class DecayOrder : uint8_t { before, after };      // decay, then update; or the reverse
enum class DecayScale : uint8_t { lr, none };           // factor 1 - lr*decay, or 1 - decay
enum class ClipScope : uint8_t { global, tensor };      // one norm for the list, or one per tensor
enum class ClipNorm : uint8_t { two, one, max };        // which norm
enum class OnNonfinite : uint8_t { propagate, skip, raise };  // what to do with a NaN or inf gradient

inline constexpr double kNoLimit = std::numeric_limits<double>::infinity();  // a disabled limit

struct Hyper {
  double lr = 1e-3;

  // of the rules
  double momentum = 0.0;
  double dampening = 0.0;
  double rho = 0.9;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double eps_root = 0.0;
  double lr_decay = 0.0;
  EpsMode eps_mode = EpsMode::outside;
  FirstStep first_step = FirstStep::grad;
  AmsgradMax amsgrad_max = AmsgradMax::raw;
  bool lr_in_velocity = true;
  bool bias_correction = true;
  bool nesterov = false;

  // of every step
  double l1 = 0.0;
  double l2 = 0.0;
  double weight_decay = 0.0;
  L1Mode l1_mode = L1Mode::subgradient;
  DecayOrder decay_order = DecayOrder::before;
  DecayScale decay_scale = DecayScale::lr;
  bool maximize = false;
  double grad_scale = 1.0;
  double clip_value = kNoLimit;

  // of the whole list
  double clip_norm = kNoLimit;
  double clip_eps = 1e-6;
  ClipScope clip_scope = ClipScope::global;
  ClipNorm clip_norm_type = ClipNorm::two;
  OnNonfinite on_nonfinite = OnNonfinite::propagate;

  bool operator==(const Hyper&) const = default;
};

}  // namespace fastopt
