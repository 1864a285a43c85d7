// The mask depends on indices only, so an array can be divided among threads anywhere.
#include "cpu/dropout.hpp"

#include "cpu/isa_dispatch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/work_split.hpp"

namespace fastopt::cpu {
namespace {

// `weight` is the number of bytes moved for each element.
template <class Range>
void parallel_for_elements(int64_t size, int64_t weight, Range&& range) {
  on_threads(threads_for(size * weight), [&](int thread, int threads) {
    ThreadSlice(size * weight, thread, threads).take(size, weight, range);
  });
}

}  // namespace

void dropout(const DropoutCall& call) {
  const IeeeMode mode;  // for the constants
  const DropoutConstants constants(call.mask.p, call.options);
  const auto range = kernels().dropout.apply[int(call.dtype)].range;
  const int64_t moved = (call.residual.data ? 3 : 2) * int64_t(bytes_of(call.dtype));
  const bool nontemporal =
      !call.x.walk && !call.out.walk &&
      bypasses_cache(call.size * moved, call.out.data, call.x.data, call.residual.data);
  parallel_for_elements(call.size, moved, [&](int64_t begin, int64_t end) {
    range(call, constants, begin, end, nontemporal);
  });
}

void dropout_mask(const DropoutMask& mask, int64_t size, bool* keep) {
  const uint64_t threshold = drop_threshold(mask.p);
  const auto range = kernels().dropout.mask;
  parallel_for_elements(size, int64_t(sizeof(bool)),
                        [&](int64_t begin, int64_t end) { range(mask, threshold, begin, end, keep); });
}

}  // namespace fastopt::cpu
