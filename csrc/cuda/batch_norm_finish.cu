#include "cuda/batch_norm_finish.hpp"

namespace fastopt::cuda {
namespace {

template <class Finish, class Call>
__global__ void __launch_bounds__(kFinishers)
    finish_all(const Finishing t, const FASTOPT_WHOLE_ARGUMENT Call call, const RuleArrays rules) {
  finish_channels<false>(t, Finish{call}, rules);
}

template <class Finish, class Call>
void queue(const Call& call, const Finishing& t, const RuleArrays& rules) {
  launch(call.place, finish_all<Finish, Call>, t.blocks, kFinishers, t, call, rules);
}

}  // namespace

Finishing finishing_of(const ChannelSpace& s, const Parts& parts) {
  Finishing t{parts, groups_of(s), s.channels, parts.pairs ? s.count() : 0, 0, 1, 0};
  if (!parts.pairs) t.groups.count = 0;
  int64_t rest = t.groups.count;
  for (; rest > kFinishers; rest = over(rest, 4)) ++t.rounds;
  while (t.threads < rest) t.threads *= 2;
  t.blocks = unsigned(over(s.channels, kFinishers / t.threads));
  return t;
}

void queue_finish(const BatchMoments& call, const Finishing& t) {
  queue<FinishMoments>(call, t, RuleArrays{});
}

void queue_finish(const BatchNormForward& call, const Finishing& t, const RuleArrays& rules) {
  call.dtype == DType::float64 ? queue<FinishForward<double>>(call, t, rules)
                               : queue<FinishForward<float>>(call, t, rules);
}

void queue_finish(const BatchNormBackward& call, const Finishing& t, const RuleArrays& rules) {
  call.dtype == DType::float64 ? queue<FinishBackward<double>>(call, t, rules)
                               : queue<FinishBackward<float>>(call, t, rules);
}

}  // namespace fastopt::cuda
