#include "cuda/step_kernel.hpp"

namespace fastopt::cuda {

const StepLaunch* const steps_bfloat16_wide = StepRow<BFloat16, float, RuleList>::launches;

}  // namespace fastopt::cuda
