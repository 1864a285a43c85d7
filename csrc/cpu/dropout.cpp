// The mask depends on indices alone, so that threads may cut an array anywhere.
#include "cpu/dropout.hpp"

#include "cpu/lists.hpp"
#include "cpu/parallel.hpp"
#include "cpu/select.hpp"

namespace fastopt::cpu {
namespace {

// `weight` bytes are moved for each of the elements.
template <class Range>
void share_out(int64_t size, int64_t weight, Range&& range) {
  on_threads(threads_for(size * weight), [&](int thread, int threads) {
    Share(size * weight, thread, threads).take(size, weight, range);
  });
}

}  // namespace

void dropout(const DropoutCall& call) {
  const IeeeMode mode;  // for the constants
  const DropoutConstants constants(call.mask.p, call.options);
  const auto range = kernels().dropout.apply[int(call.dtype)].range;
  const int64_t moved = (call.residual.data ? 3 : 2) * int64_t(bytes_of(call.dtype));
  const bool apart = call.out.data != call.x.data && call.out.data != call.residual.data;
  const bool streams = apart && !call.x.walk && !call.out.walk && outgrows_cache(call.size * moved);
  share_out(call.size, moved,
            [&](int64_t begin, int64_t end) { range(call, constants, begin, end, streams); });
}

void dropout_mask(const DropoutMask& mask, int64_t size, bool* keep) {
  const uint64_t threshold = drop_threshold(mask.p);
  const auto range = kernels().dropout.mask;
  share_out(size, int64_t(sizeof(bool)),
            [&](int64_t begin, int64_t end) { range(mask, threshold, begin, end, keep); });
}

}  // namespace fastopt::cpu
