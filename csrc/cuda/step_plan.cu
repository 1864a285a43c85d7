#include "cuda/step_plan.hpp"

#include <stdexcept>

#include "core/float_mode.hpp"
#include "cuda/walk_table.hpp"
#include "rules/around.hpp"

namespace fastopt {

using namespace cuda;

namespace {

template <class Visit>
void each_tensor(const StepCall& call, Visit&& visit) {
  int index = 0;
  for (int r = 0; r < int(call.count); ++r)
    for (int64_t i = 0; i < call.runs[r].count; ++i)
      visit(call.runs[r], r, call.runs[r].tensors[i], index++);
}

int vectors_for(const Place& place, int tensors, bool stateless, int64_t elements) {
  constexpr int64_t enough = 32 * 1024;  // elements per multiprocessor
  const int processors = device_attribute(place, cudaDevAttrMultiProcessorCount);
  return (tensors > 1 || stateless) && elements > processors * enough ? 2 : 1;
}

}  // namespace

StepPlan::StepPlan(const StepCall& call, Lifetime lifetime)
    : lifetime_(lifetime), scope_(call.list_hyper->clip_scope) {
  list_tensors(call);
  buffer_ = carve(call.place, lifetime, [&](Arena& arena) { lay_out(arena); });
  fill(call.place);
  send_counts(call.place, {call.step - 1, 0});
  send_hypers(call);
}

void StepPlan::list_tensors(const StepCall& call) {
  tables.runs = int(call.count);
  int64_t elements = 0;
  const bool stateless = InfoTable<RuleList>::rules[call.rule].slots == 0;
  if (scope_ == ClipScope::global) norms_.begin_sequence();
  each_tensor(call, [&](const StepRun& run, int r, const StepTensor& t, int) {
    if (scope_ == ClipScope::tensor) norms_.begin_sequence();
    norms_.add(t.size, r, stored_as(run.storage));
    elements += t.size;
    ++tensors;
  });
  tables.vectors = vectors_for(call.place, tensors, stateless, elements);
  for (int r = 0; r < tables.runs; ++r) doubles_.push_back(call.runs[r].storage == Storage::float64);
  for (int s = 0; s < kStorages; ++s) {
    Span& span = spans[s];
    span.first = int(entries_.size());
    each_tensor(call, [&](const StepRun& run, int r, const StepTensor& t, int index) {
      if (int(run.storage) != s || t.size == 0) return;
      entries_.push_back({t.param, {t.state[0], t.state[1], t.state[2]}, t.size, index, r});
      chunks_.push_back(span.chunks);
      span.chunks +=
          ChunkLayout(t.param, int64_t(bytes_of(stored_as(run.storage))), tables.vectors).count(t.size);
      ++span.count;
    });
  }
}

void StepPlan::lay_out(Arena& arena) {
  tables.entries = arena.allocate<StepEntry>(int64_t(entries_.size()));
  tables.chunks = arena.allocate<int64_t>(int64_t(chunks_.size()));
  tables.grads = arena.allocate<Source>(tensors);
  tables.list_hyper = arena.allocate<Hyper>(1 + tables.runs);
  tables.doubles = arena.allocate<int64_t>(tables.runs);
  tables.constants = arena.allocate<Constants>(tables.runs);
  tables.clips = arena.allocate<Clip>(tensors);
  tables.control = arena.allocate<Control>(1);
  tables.norms = norms_.lay_out(arena);
  tables.norms.sources = tables.grads;
  tables.norms.scale_clamps = arena.allocate<NormScaleClamp>(tables.runs);
}

void StepPlan::fill(const Place& place) {
  tables.hypers = tables.list_hyper + 1;
  tables.norms.nonfinite = &tables.control->nonfinite;
  copy_list_to_device(place, tables.entries, entries_);
  copy_list_to_device(place, tables.chunks, chunks_);
  copy_list_to_device(place, tables.doubles, doubles_);
  norms_.send_to(place, tables.norms);
}

void StepPlan::send_counts(const Place& place, Counts counts) {
  const Control control{counts, kAllFinite, 0};
  copy_to_device(place, tables.control, &control, sizeof(control));
  host_counts = counts;
}

// Another scope has other sequences to sum, and therefore other tables.
void StepPlan::change_scope(const StepCall& call) {
  if (in_graph)
    throw std::runtime_error(
        "clip_scope cannot be changed any more: a graph was captured, whose norms are of the other "
        "scope; make another optimizer");
  const Counts counts = cuda::counts(this, call.place);
  StepPlan other(call, lifetime_);
  other.send_counts(call.place, counts);
  *this = static_cast<StepPlan&&>(other);
}

void StepPlan::send_hypers(const StepCall& call) {
  std::vector<Hyper> now{*call.list_hyper};
  for (int r = 0; r < tables.runs; ++r) now.push_back(*call.runs[r].hyper);
  if (hypers_ == now) return;
  if (lifetime_ == Lifetime::persistent && is_recording(call.place))
    throw std::runtime_error(
        "a hyper-parameter was changed on a stream that is being captured: change it before or after");
  if (call.list_hyper->clip_scope != scope_) return change_scope(call);
  const IeeeMode mode;
  std::vector<NormScaleClamp> scale_clamps;
  for (int r = 0; r < tables.runs; ++r)
    scale_clamps.push_back({gradient_factor(now[1 + r]), now[1 + r].clip_value});
  copy_list_to_device(call.place, tables.list_hyper, now);
  copy_list_to_device(call.place, tables.norms.scale_clamps, scale_clamps);
  hypers_ = std::move(now);
}

HostConstants StepPlan::host_constants(const StepCall& call) const {
  HostConstants host;
  if (!host_knows_counts() || tables.runs > kMaxHostConstants) return host;
  const IeeeMode mode;
  host.step = host_counts.step + 1;
  for (int r = 0; r < tables.runs; ++r)
    step_prologues[call.rule].prepare(*call.runs[r].hyper, doubles_[r], host.step, host.constants[r]);
  return host;
}

void StepPlan::queue_norms(const Place& place, ClipNorm kind, bool checks_finite) const {
  NormTables norms = tables.norms;
  if (!checks_finite) norms.nonfinite = nullptr;
  cuda::queue_norms(place, norms_, norms, kind);
}

void StepPlan::send_grads(const StepCall& call, bool recording) {
  in_graph = in_graph || recording;
  if (has_grads_ && call.same_grads && !in_graph) return;
  has_grads_ = false;
  std::vector<Source> now;
  now.reserve(size_t(tensors));
  each_tensor(call, [&](const StepRun&, int, const StepTensor& t, int) { now.push_back(t.grad); });
  WalkTable walks;
  for (Source& source : now) walks.add(source.walk);
  if (walks.count() > 0 && !walks_.data())
    walks_ = DeviceBuffer(call.place, tensors * int64_t(sizeof(Walk)), lifetime_);
  walks.upload(call.place, reinterpret_cast<const Walk*>(walks_.data()));
  copy_list_to_device(call.place, tables.grads, now);
  has_grads_ = true;
}

}  // namespace fastopt
