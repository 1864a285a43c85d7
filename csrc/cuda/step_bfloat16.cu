#include "cuda/step_kernel.hpp"

namespace fastopt::cuda {

const StepLaunch* const steps_bfloat16 = StepRow<BFloat16, BFloat16, RuleList>::launches;

}  // namespace fastopt::cuda
