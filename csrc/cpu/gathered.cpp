#include "cpu/gathered.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#include "cpu/lists.hpp"

namespace fastopt::cpu {
namespace {

constexpr int64_t kRoom = 128 << 10;  // bytes: in a second-level cache, beside what else a step reads
constexpr int64_t kLine = 64;

// The axis along which neighbors share cache lines, if those of the fastest one do not; or -1.
int axis_of_lines(const Walk& w) {
  const int last = int(w.ndim) - 1;
  if (last < 0 || std::abs(w.stride[last]) < kLine) return -1;
  int found = -1;
  for (int d = 0; d < last; ++d) {
    const int64_t step = std::abs(w.stride[d]);
    if (step > 0 && step < kLine && (found < 0 || step < std::abs(w.stride[found]))) found = d;
  }
  return found;
}

// Bytes to what has this index in axes [first, last], the last of them the fastest.
int64_t offset_of(const Walk& w, int first, int last, int64_t index) {
  int64_t offset = 0;
  for (int d = last; d >= first; index /= w.shape[d--]) offset += index % w.shape[d] * w.stride[d];
  return offset;
}

// Rows and columns of a source, at any distances, to rows that are `pitch` elements apart. By way of a
// block: where rows are a power of two apart, their lines would drive each other out of the cache. The
// next block is asked for: far lines in turn are not foreseen (without, up to 1.6 times as long).
template <class T>
void transpose(const char* from, int64_t row_step, int64_t column_step, int64_t rows, int64_t columns,
               char* to, int64_t pitch) {
  constexpr int64_t side = kLine / sizeof(T);
  T block[side][side + 1];
  for (int64_t r0 = 0; r0 < rows; r0 += side) {
    for (int64_t c0 = 0; c0 < columns; c0 += side) {
      const int64_t height = std::min(side, rows - r0), width = std::min(side, columns - c0);
      const char* corner = from + r0 * row_step + c0 * column_step;
      for (int64_t c = 0; c < width; ++c) __builtin_prefetch(corner + (c + side) * column_step);
      for (int64_t c = 0; c < width; ++c)
        for (int64_t r = 0; r < height; ++r)
          memcpy(&block[r][c], corner + r * row_step + c * column_step, sizeof(T));
      for (int64_t r = 0; r < height; ++r)
        memcpy(to + ((r0 + r) * pitch + c0) * int64_t(sizeof(T)), block[r], width * sizeof(T));
    }
  }
}

constexpr auto transpose_of(int64_t itemsize) {
  return itemsize == 2   ? transpose<uint16_t>
         : itemsize == 4 ? transpose<uint32_t>
                         : transpose<uint64_t>;
}

}  // namespace

bool Gathered::fill(const Source& array, int64_t itemsize, int64_t size, int64_t begin) {
  const Walk& w = *array.walk;
  const int axis = axis_of_lines(w), last = int(w.ndim) - 1;
  if (axis < 0) return false;
  int64_t row = 1;
  for (int d = axis + 1; d <= last; ++d) row *= w.shape[d];
  if (w.shape[axis] < 2 || 2 * row * itemsize > kRoom) return false;
  if (!room_) room_.reset(new (std::nothrow) char[kRoom]);
  if (!room_) return false;

  walk_ = array.walk;
  begin_ = begin;
  end_ = std::min(size, (begin + kRoom / itemsize) / row * row);
  for (int64_t at = begin; at < end_;) {  // rows that lie along the axis, or the rest of one
    const int64_t r = at / row, c = at % row, ahead = w.shape[axis] - r % w.shape[axis];
    const int64_t rows = c > 0 ? 1 : std::clamp<int64_t>((end_ - at) / row, 1, ahead);
    const char* from = static_cast<const char*>(array.data) + offset_of(w, 0, axis, r);
    char* to = room_.get() + (at - begin) * itemsize;
    each_run(w.shape[last], c, row, [&](int64_t index, int64_t first, int64_t n) {
      const char* run = from + offset_of(w, axis + 1, last - 1, index) + first * w.stride[last];
      transpose_of(itemsize)(run, w.stride[axis], w.stride[last], rows, n, to, row);
      to += n * itemsize;
    });
    at += rows * row - c;
  }
  return true;
}

}  // namespace fastopt::cpu
