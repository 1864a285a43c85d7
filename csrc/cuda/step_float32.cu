#include "cuda/step_kernel.hpp"

namespace fastopt::cuda {

const StepLaunch* const steps_float32 = StepRow<float, float, RuleList>::launches;

}  // namespace fastopt::cuda
