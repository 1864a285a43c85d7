#include "cuda/step_kernel.hpp"

namespace fastopt::cuda {

const StepLaunch* const steps_float16_wide = StepRow<Half, float, RuleList>::launches;

}  // namespace fastopt::cuda
