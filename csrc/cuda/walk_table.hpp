// The walks of strided arrays, as kernels read them.
#pragma once

#include <vector>

#include "core/buffer.hpp"
#include "cuda/device_buffer.hpp"

namespace fastopt::cuda {

// Collects walks that are in host memory, copies them to the device, and points their arrays there.
class WalkTable {
 public:
  // The reference must stay valid until upload().
  void add(const Walk*& walk) {
    if (!walk) return;
    walks_.push_back(*walk);
    arrays_.push_back(&walk);
  }
  int64_t count() const { return int64_t(walks_.size()); }

  void upload(const Place& place, const Walk* to) const {
    copy_list_to_device(place, to, walks_);
    for (const Walk** const walk : arrays_) *walk = to++;
  }

 private:
  std::vector<Walk> walks_;
  std::vector<const Walk**> arrays_;
};

}  // namespace fastopt::cuda
