// The tables of a norm, on the host and on the device.
#include "cuda/norm.hpp"

namespace fastopt::cuda {

void NormPlan::begin_sequence() {
  sequences.push_back({int32_t(entries.size()), 0, 0, group_count, false});
  groups.push_back(group_count);
}

void NormPlan::add(int64_t size, int run, DType dtype) {
  Sequence& q = sequences.back();
  starts.push_back(q.elements);
  entries.push_back({q.elements, size, int32_t(entries.size()), run, dtype});
  q.elements += size;
  q.count += 1;
  q.doubles = q.doubles || dtype == DType::float64;
  group_count = q.group + ceil_div(q.elements, kGroupSize);
}

NormTables NormPlan::lay_out(Arena& arena) const {
  NormTables t{};
  t.entries = arena.allocate<NormEntry>(int64_t(entries.size()));
  t.starts = arena.allocate<int64_t>(int64_t(starts.size()));
  t.sequences = arena.allocate<Sequence>(int64_t(sequences.size()));
  t.groups = arena.allocate<int64_t>(int64_t(groups.size()));
  t.parts = arena.allocate<double>(group_count);
  t.states = arena.allocate<Norm2State>(int64_t(sequences.size()));
  t.sequence_count = int32_t(sequences.size());
  t.group_count = group_count;
  return t;
}

void NormPlan::send_to(const Place& place, const NormTables& t) const {
  copy_list_to_device(place, t.entries, entries);
  copy_list_to_device(place, t.starts, starts);
  copy_list_to_device(place, t.sequences, sequences);
  copy_list_to_device(place, t.groups, groups);
}

}  // namespace fastopt::cuda
