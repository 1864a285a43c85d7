#include "cpu/isa_dispatch.hpp"

#include <atomic>
#include <stdexcept>

namespace fastopt::cpu {
namespace {

struct Built {
  Kernels kernels;
  bool (*supported)();
};

#if defined(__x86_64__)
#define FASTOPT_SUPPORTS(isa) bool(__builtin_cpu_supports("x86-64-" #isa))
#elif defined(__aarch64__)
#define FASTOPT_SUPPORTS(isa) true
#endif
#define FASTOPT_BUILT(isa) \
  {{#isa, steps_##isa, batch_norm_##isa, dropout_##isa}, [] { return FASTOPT_SUPPORTS(isa); }}

const Built built[] = {FASTOPT_ISAS};  // from the build: FASTOPT_BUILT of each, best first

std::atomic<const Kernels*> in_use{nullptr};  // a step may run on another thread

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

}  // namespace

std::vector<std::string> isas_built() {
  std::vector<std::string> names;
  for (const Built& b : built) names.push_back(b.kernels.isa);
  return names;
}

std::vector<std::string> isas_supported() {
  std::vector<std::string> names;
  for (const Built& b : built)
    if (b.supported()) names.push_back(b.kernels.isa);
  return names;
}

void select_isa(const std::string& name) {
  for (const Built& b : built)
    if (b.supported() && (name.empty() || name == b.kernels.isa)) {
      in_use = &b.kernels;
      return;
    }
  const std::string what = name.empty() ? "no instruction set fits this CPU"
                                        : "instruction set '" + name + "' is not available";
  throw std::invalid_argument(what + "; built: " + joined(isas_built()) +
                              "; supported by this CPU: " + joined(isas_supported()));
}

const Kernels& kernels() { return *in_use; }

}  // namespace fastopt::cpu
