// The loops of BatchNorm, for one instruction set; tile.hpp explains the unnamed namespace.
#include "cpu/plane_sums.hpp"
#include "cpu/row_sums.hpp"
#include "rules/batch_norm.hpp"

namespace fastopt::cpu {
namespace {

// ---- sums ----

template <Form form, class P>
void reduce(const ChannelPiece& p) {
  if constexpr (form == Form::single)
    p.relu_mask.data ? reduce_single<P, true>(p) : reduce_single<P, false>(p);
  else
    p.relu_mask.data ? reduce_multi<P, true>(p) : reduce_multi<P, false>(p);
}

// ---- element by element ----

template <Form form, class P, bool residual, bool relu>
void normalize_as(const ChannelPiece& p) {
  using F = Compute<P>;
  const ChannelConstants<form, F, 3> constants(p);
  Tile<P> in, addend, out;
  ReluMaskWriter<F> keeper;
  each_row_tile<P>(p, [&](int64_t row, int64_t i, int n) FASTOPT_INLINE {
    const int64_t c = channel<form>(i);
    const F *mean = constants[0] + c, *scale = constants[1] + c, *shift = constants[2] + c;
    prefetch_ahead<form, P>(p, p.x, row, i, n);
    if (residual) prefetch_ahead<form, P>(p, p.residual, row, i, n);
    const F* x = in.open(row_of(p.x, row), i, n);
    const F* more = residual ? addend.open(row_of(p.residual, row), i, n) : nullptr;
    F* y = out.place(row_of(p.y, row), i, p.nontemporal);
#pragma GCC ivdep
    for (int j = 0; j < n; ++j) {
      const int64_t k = channel<form>(j);
      F value = Normalize<F>{mean[k], scale[k], shift[k]}(x[j]);
      if constexpr (residual) value += more[j];
      if constexpr (relu) value = value <= kReluFloor<P> ? F(0) : value;
      y[j] = value;
    }
    if (relu && p.relu_mask.data) keeper.put(p, row, i, n, y);
    out.close(y, row_of(p.y, row), i, n, p.nontemporal);
  });
}

template <Form form, class P>
void normalize(const ChannelPiece& p) {
  if (p.residual.data)
    return p.relu ? normalize_as<form, P, true, true>(p) : normalize_as<form, P, true, false>(p);
  return p.relu ? normalize_as<form, P, false, true>(p) : normalize_as<form, P, false, false>(p);
}

template <Form form, class P, bool relu>
void gradient_as(const ChannelPiece& p) {
  using F = Compute<P>;
  const ChannelConstants<form, F, 4> constants(p);
  Tile<P> in, out, rest;
  MaskedRow<P, relu> passed;
  each_row_tile<P>(p, [&](int64_t row, int64_t i, int n) FASTOPT_INLINE {
    const int64_t c = channel<form>(i);
    const F *mean = constants[0] + c, *slope = constants[1] + c;
    const F *offset = constants[2] + c, *scale = constants[3] + c;
    prefetch_ahead<form, P>(p, p.dy, row, i, n);
    if (p.x.data) prefetch_ahead<form, P>(p, p.x, row, i, n);
    const F* dy = passed.open(p, row, i, n);
    F* dx = out.place(row_of(p.dx, row), i, p.nontemporal);
    if (p.dresidual.data) rest.close(dy, row_of(p.dresidual, row), i, n, p.nontemporal);
    if (p.x.data) {
      const F* x = in.open(row_of(p.x, row), i, n);
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) {
        const int64_t k = channel<form>(j);
        dx[j] = NormalizeBackward<F>{mean[k], slope[k], offset[k], scale[k]}(x[j], dy[j]);
      }
    } else {
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) dx[j] = dy[j] * scale[channel<form>(j)];
    }
    out.close(dx, row_of(p.dx, row), i, n, p.nontemporal);
  });
}

template <Form form, class P>
void gradient(const ChannelPiece& p) {
  p.relu_mask.data ? gradient_as<form, P, true>(p) : gradient_as<form, P, false>(p);
}

// ---- the table ----

template <class P>
constexpr void fill(BatchNormKernels& k, int dtype) {
  k.moments[int(Form::single)][dtype] = moments_single<P>;
  k.moments[int(Form::multi)][dtype] = moments_multi<P>;
  k.normalize[int(Form::single)][dtype] = normalize<Form::single, P>;
  k.normalize[int(Form::multi)][dtype] = normalize<Form::multi, P>;
  k.reduce[int(Form::single)][dtype] = reduce<Form::single, P>;
  k.reduce[int(Form::multi)][dtype] = reduce<Form::multi, P>;
  k.gradient[int(Form::single)][dtype] = gradient<Form::single, P>;
  k.gradient[int(Form::multi)][dtype] = gradient<Form::multi, P>;
}

constexpr BatchNormKernels table() {
  BatchNormKernels k{};
  fill<Half>(k, 0);
  fill<BFloat16>(k, 1);
  fill<float>(k, 2);
  fill<double>(k, 3);
  return k;
}

}  // namespace

constexpr BatchNormKernels FASTOPT_TABLE(batch_norm_, FASTOPT_ISA) = table();

}  // namespace fastopt::cpu
