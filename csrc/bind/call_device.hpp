// Which engine a call goes to, and on which stream.
#pragma once

#include <initializer_list>
#include <utility>
#include <vector>

#include "bind/array.hpp"

namespace fastopt::bind {

// The engine of a place; for a device's, one must have been found.
const Backend& engine_of(const Place& place);

// Whether CUDA arrays can be worked on here; if not, why.
std::string cuda_trouble();
void require_cuda(py::handle object, const ArgName& arg);

struct Exchange;

// The one place where all arrays of a call lie. The first that is not empty decides, and its library's
// current stream is the one that work is queued on; what another stream is still writing is waited for
// there, by the device.
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

  // Whether an array's library is that of the first: what it has queued comes before, on the same
  // stream.
  bool is_of_library(py::handle array) const;
  const Exchange* exchange() const;  // of that library; null if it has none

  void wait_for(const Array& a);  // before work is queued
  // When it has been, or was refused: streams that were waited for wait in turn, as what they do next
  // may write or free these arrays.
  void release_waited_streams() noexcept;
  // In a later call: the stream that is current by then, which waits for what was queued on the last.
  void refresh_stream();
  // What keeps the place's stream alive; None if nobody can say.
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

// Of arrays that are to be worked on now; those without an owner are not there.
CallDevice resolve_device(std::initializer_list<std::pair<Array*, const char*>> arrays);

// Memory of an engine's own, for a call or kept for later ones.
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

  // Its memory goes back in the order of the stream it was allocated on or, if this was called, of the
  // one it was used on last.
  void used_on(const Place& place) { place_ = place; }

  explicit operator bool() const { return data_; }
  template <class T>
  T* data() const {
    return static_cast<T*>(data_);
  }

 private:
  const Backend* engine_ = nullptr;  // which has made it and will take it back
  Place place_;
  Lifetime lifetime_ = Lifetime::call;
  void* data_ = nullptr;
};

void register_call_device(py::module_& m);

}  // namespace fastopt::bind
