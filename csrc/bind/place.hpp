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
void require_cuda(py::handle object, const Where& where);

struct Exchange;

// The one place where all arrays of a call lie. The first that is not empty decides, and its library's
// current stream is the one that work is queued on; what another stream is still writing is waited for
// there, by the device.
class Meeting {
 public:
  Meeting() = default;
  explicit Meeting(const Place& place) : place_(place) {}  // without arrays
  Meeting(Meeting&&) = default;
  Meeting& operator=(Meeting&&) = default;
  ~Meeting() { let_go(); }
  bool empty() const { return !owner_; }

  void add(Array& a, const Where& where);
  const Place& place() const { return place_; }
  const Backend& engine() const { return engine_of(place_); }

  // Whether an array's library is that of the first: what it has queued comes before, on the same
  // stream.
  bool is_of_library(py::handle array) const;
  const Exchange* exchange() const;  // of that library; null if it has none

  void await(const Array& a);  // before work is queued
  // When it has been, or was refused: streams that were waited for wait in turn, as what they do next
  // may write or free these arrays.
  void let_go() noexcept;
  // In a later call: the stream that is current by then, which waits for what was queued on the last.
  void restream();
  // What keeps the place's stream alive; None if nobody can say.
  const py::object& stream_object() const { return stream_; }

  template <class F>
  void each_object(F&& f) const {
    f(owner_), f(stream_);
  }

 private:
  bool lives(void* stream) const;

  py::object owner_;  // of the first
  py::object stream_ = py::none();
  Where first_;
  Place place_;
  std::vector<void*> awaited_;  // streams
};

// Of arrays that are to be worked on now; those without an owner are not there.
Meeting meet(std::initializer_list<std::pair<Array*, const char*>> arrays);

// Memory of an engine's own, for a call or kept for later ones.
class Room {
 public:
  Room() = default;
  Room(const Place& place, int64_t bytes, Lifetime lifetime)
      : engine_(&engine_of(place)),
        place_(place),
        lifetime_(lifetime),
        data_(lifetime == Lifetime::call ? engine_->allocate(place, bytes)
                                         : engine_->allocate_retained(place, bytes)) {}
  ~Room() {
    if (data_)
      (lifetime_ == Lifetime::call ? engine_->release : engine_->release_retained)(place_, data_);
  }
  Room(Room&& other) noexcept { *this = static_cast<Room&&>(other); }
  Room& operator=(Room&& other) noexcept {
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

void register_place(py::module_& m);

}  // namespace fastopt::bind
