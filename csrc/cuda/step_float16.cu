#include "cuda/step_kernel.hpp"

namespace fastopt::cuda {

const StepLaunch* const steps_float16 = StepRow<Half, Half, RuleList>::launches;

}  // namespace fastopt::cuda
