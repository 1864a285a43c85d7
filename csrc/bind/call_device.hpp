// The engine and the stream of a call.
#pragma once

#include <initializer_list>
#include <utility>
#include <vector>

#include "bind/array.hpp"

namespace fastopt::bind {

// The engine of a place; for a device, the CUDA engine must have been loaded.
const Backend& engine_of(const Place& place);

// Why CUDA arrays cannot be used here; empty if they can.
std::string cuda_trouble();
void require_cuda(py::handle object, const ArgName& arg);

struct Exchange;

// The device and stream of a call. The first non-empty array determines the device, and its library's
// current stream receives the work. If another array was produced on a different stream, that stream is
// waited for on the device, without blocking the host.
class CallDevice {
 public:
  CallDevice() = default;
  explicit CallDevice(const Place& place) : place_(place) {}  // without arrays
  CallDevice(CallDevice&&) = default;
  CallDevice& operator=(CallDevice&&) = default;
  ~CallDevice() { release_waited_streams(); }
  bool empty() const { return !owner_; }

  void add(Array& a, const ArgName& arg);
  const Place& place() const { return place_; }
  const Backend& engine() const { return engine_of(place_); }

  // Whether an array is of the same library as the first one: its work was queued earlier on the same
  // stream.
  bool is_of_library(py::handle array) const;
  const Exchange* exchange() const;  // of the first array's library; null if it has none

  void wait_for(const Array& a);  // before work is queued
  // After queueing, or on failure: streams that were waited for now wait for this one, because their
  // next operations may overwrite or free these arrays.
  void release_waited_streams() noexcept;
  // In a later call: switches to the stream that is current by then, which waits for the work queued on
  // the previous one.
  void refresh_stream();
  // The object that keeps the stream alive; None if the library has none.
  const py::object& stream_object() const { return stream_; }

  template <class F>
  void each_object(F&& f) const {
    f(owner_), f(stream_);
  }

 private:
  bool is_alive(void* stream) const;

  py::object owner_;  // of the first
  py::object stream_ = py::none();
  ArgName first_;
  Place place_;
  std::vector<void*> waited_;  // streams
};

// For the arrays of a call, which wait for their streams; arrays without an owner are skipped.
CallDevice resolve_device(std::initializer_list<std::pair<Array*, const char*>> arrays);

// Memory allocated by an engine, for one call or for later ones, too.
class EngineBuffer {
 public:
  EngineBuffer() = default;
  EngineBuffer(const Place& place, int64_t bytes, Lifetime lifetime)
      : engine_(&engine_of(place)),
        place_(place),
        lifetime_(lifetime),
        data_(lifetime == Lifetime::call ? engine_->allocate(place, bytes)
                                         : engine_->allocate_retained(place, bytes)) {}
  ~EngineBuffer() {
    if (data_)
      (lifetime_ == Lifetime::call ? engine_->release : engine_->release_retained)(place_, data_);
  }
  EngineBuffer(EngineBuffer&& other) noexcept { *this = static_cast<EngineBuffer&&>(other); }
  EngineBuffer& operator=(EngineBuffer&& other) noexcept {
    std::swap(engine_, other.engine_);
    std::swap(place_, other.place_);
    std::swap(lifetime_, other.lifetime_);
    std::swap(data_, other.data_);
    return *this;
  }

  // The memory is freed in the order of the stream it was allocated on or, after this, of the stream it
  // was used on last.
  void used_on(const Place& place) { place_ = place; }

  explicit operator bool() const { return data_; }
  template <class T>
  T* data() const {
    return static_cast<T*>(data_);
  }

 private:
  const Backend* engine_ = nullptr;  // that allocated it and frees it
  Place place_;
  Lifetime lifetime_ = Lifetime::call;
  void* data_ = nullptr;
};

void register_call_device(py::module_& m);

}  // namespace fastopt::bind
