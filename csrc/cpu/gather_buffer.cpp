#include "cpu/gather_buffer.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#include "cpu/work_split.hpp"

namespace fastopt::cpu {
namespace {

// Fits a second-level cache beside the other arrays of a step.
constexpr int64_t kScratchBytes = 128 << 10;

// The axis along which neighbors share cache lines, if neighbors along the fastest axis do not; or -1.
int axis_of_lines(const Walk& w) {
  const int last = int(w.ndim) - 1;
  if (last < 0 || std::abs(w.stride[last]) < kCacheLine) return -1;
  int found = -1;
  for (int d = 0; d < last; ++d) {
    const int64_t stride = std::abs(w.stride[d]);
    if (stride > 0 && stride < kCacheLine && (found < 0 || stride < std::abs(w.stride[found])))
      found = d;
  }
  return found;
}

// The byte offset of a linear index into axes [first, last], of which the last is the fastest.
int64_t offset_of(const Walk& w, int first, int last, int64_t index) {
  int64_t offset = 0;
  for (int d = last; d >= first; index /= w.shape[d--]) offset += index % w.shape[d] * w.stride[d];
  return offset;
}

// Copies rows and columns with arbitrary strides to rows that are `pitch` elements apart, through a
// small block: rows that are a power of two apart would evict each other's lines from the cache. The
// next block is prefetched, because the hardware does not predict distant lines (without it, up to 1.6
// times as long).
template <class T>
void transpose(const char* from, int64_t row_stride, int64_t column_stride, int64_t rows,
               int64_t columns, char* to, int64_t pitch) {
  constexpr int64_t side = kCacheLine / sizeof(T);
  T block[side][side + 1];
  for (int64_t r0 = 0; r0 < rows; r0 += side) {
    for (int64_t c0 = 0; c0 < columns; c0 += side) {
      const int64_t height = std::min(side, rows - r0), width = std::min(side, columns - c0);
      const char* corner = from + r0 * row_stride + c0 * column_stride;
      for (int64_t c = 0; c < width; ++c) __builtin_prefetch(corner + (c + side) * column_stride);
      for (int64_t c = 0; c < width; ++c)
        for (int64_t r = 0; r < height; ++r)
          memcpy(&block[r][c], corner + r * row_stride + c * column_stride, sizeof(T));
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

bool GatherBuffer::fill(const Source& array, int64_t itemsize, int64_t size, int64_t begin) {
  const Walk& w = *array.walk;
  const int axis = axis_of_lines(w), last = int(w.ndim) - 1;
  if (axis < 0) return false;
  int64_t row = 1;
  for (int d = axis + 1; d <= last; ++d) row *= w.shape[d];
  if (w.shape[axis] < 2 || 2 * row * itemsize > kScratchBytes) return false;
  if (!scratch_) scratch_.reset(new (std::nothrow) char[kScratchBytes]);
  if (!scratch_) return false;

  walk_ = array.walk;
  begin_ = begin;
  end_ = std::min(size, (begin + kScratchBytes / itemsize) / row * row);
  for (int64_t at = begin; at < end_;) {  // whole rows along the axis, or the remainder of one
    const int64_t r = at / row, c = at % row, rows_left = w.shape[axis] - r % w.shape[axis];
    const int64_t rows = c > 0 ? 1 : std::clamp<int64_t>((end_ - at) / row, 1, rows_left);
    const char* from = static_cast<const char*>(array.data) + offset_of(w, 0, axis, r);
    char* to = scratch_.get() + (at - begin) * itemsize;
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
