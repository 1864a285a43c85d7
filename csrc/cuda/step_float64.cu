#include "cuda/step_kernel.hpp"

namespace fastopt::cuda {

const StepLaunch* const steps_float64 = StepRow<double, double, RuleList>::launches;

}  // namespace fastopt::cuda
