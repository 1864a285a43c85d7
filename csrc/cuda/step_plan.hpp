// What the engine keeps for a list of tensors, on the host and on the device.
#pragma once

#include <vector>

#include "cuda/step.hpp"

namespace fastopt {

struct StepPlan {
  StepPlan(const StepCall& call, Lifetime lifetime);

  // Update the device's copies where they differ. While a graph is captured, gradients are always
  // sent, so that a replay finds its own; hyper-parameters never, because they are the user's to
  // change.
  void send_grads(const StepCall& call, bool recording);
  void send_hypers(const StepCall& call);
  void send_counts(const Place& place, Counts counts);

  // The step number and the constants, if the host knows the count. The step kernel stores the number
  // on the device, so the list must have elements.
  cuda::HostConstants host_constants(const StepCall& call) const;

  void queue_norms(const Place& place, ClipNorm kind, bool checks_finite) const;

  struct Span {  // of entries with the same storage
    int first, count;
    int64_t chunks;
  };
  Span spans[kStorages] = {};
  int tensors = 0;
  cuda::StepTables tables{};

  Counts host_counts;           // as far as the host knows
  bool device_counted = false;  // whether the device may have counted since
  bool in_graph = false;        // captured in a graph, which may be replayed at any time
  bool host_knows_counts() const { return !device_counted && !in_graph; }

 private:
  void list_tensors(const StepCall& call);
  void lay_out(cuda::Arena& arena);
  void fill(const Place& place);
  void change_scope(const StepCall& call);

  Lifetime lifetime_;
  cuda::NormPlan norms_;
  ClipScope scope_;
  std::vector<cuda::StepEntry> entries_;
  std::vector<int64_t> chunks_, doubles_;
  bool has_grads_ = false;
  std::vector<Hyper> hypers_;  // as sent: the list's, then each run's
  cuda::DeviceBuffer buffer_, walks_;
};

}  // namespace fastopt
