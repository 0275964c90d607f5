// conv: cross-correlation over live weights only, in one or two dimensions, with stride, padding, dilation and groups.
//
// A weight's column is (channel in group, ky, kx); what it reads lies at a fixed distance from the output's place, looked
// up in a table of the columns. The input's gradient of stride s is s * s correlations of stride 1, one a phase: the pixels
// s j + a of an axis meet just the ky with a + pad - ky dilation = s q, in row j + q of the output.
#include "core/gradients.h"
#include "core/memory_plan.h"
#include "core/node_functions.h"
#include "core/step.h"
#include "core/threads.h"
#include "core/transposed.h"

namespace tkt {
namespace {

constexpr uint32_t kMaxWindow = 256, kMaxReach = 4096;
constexpr uint32_t kStripBytes = 1u << 18, kBlockBytes = 1u << 19;  // parts of a second cache of 1 MiB

// One axis of a convolution.
struct Axis {
  uint32_t kernel, stride, pad, dilation, in, out;

  uint32_t reach() const { return dilation * (kernel - 1) + 1; }
  bool sound() const {
    const bool ranges = kernel >= 1 && kernel <= kMaxWindow && stride >= 1 && stride <= kMaxWindow && dilation >= 1 &&
                        dilation <= kMaxWindow && reach() <= kMaxReach && pad < reach();
    return ranges && in + 2 * pad >= reach() && out == (in + 2 * pad - reach()) / stride + 1;
  }

  // Rows read behind the input's last.
  uint32_t behind() const {
    const uint32_t last = (out - 1) * stride + reach();
    return last > pad + in ? last - pad - in : 0;
  }
  uint32_t phase_count() const { return stride < in ? stride : in; }
  uint32_t phase(uint32_t k) const {  // of the pixels that meet this place of the kernel
    const uint32_t shift = (k * dilation + stride * kMaxReach - pad) % stride;
    return shift;
  }
  int32_t quotient(uint32_t k) const {  // q
    return (int32_t(phase(k)) + int32_t(pad) - int32_t(k * dilation)) / int32_t(stride);
  }
  uint32_t phase_size(uint32_t a) const { return (in - a + stride - 1) / stride; }

  // Rows that the gradient of the input reads before the output's first and behind its last.
  void gradient_reach(uint32_t *before, uint32_t *after) const {
    int32_t low = 0, high = int32_t(out) - 1;
    for (uint32_t k = 0; k < kernel; ++k) {
      if (phase(k) >= in) continue;
      const int32_t first = quotient(k), last = first + int32_t(phase_size(phase(k))) - 1;
      low = low < first ? low : first;
      high = high > last ? high : last;
    }
    *before = uint32_t(-low);
    *after = uint32_t(high - int32_t(out) + 1);
  }
};

// Attributes and shapes of a convolution.
struct Conv {
  Axis h, w;
  uint32_t groups, in_channels, out_channels;

  uint32_t window() const { return h.kernel * w.kernel; }
  uint32_t columns() const { return in_channels / groups * window(); }
  uint32_t phases() const { return h.phase_count() * w.phase_count(); }
  uint32_t phase_row(uint32_t a, uint32_t b) const { return (a * w.phase_count() + b) * in_channels; }
};

Conv conv_of(const Shape &in, const Shape &out, const uint32_t *a) {
  const Place x = place_of(in, {0, 0, 0, 0}), y = place_of(out, {0, 0, 0, 0});
  return {{a[0], a[2], a[4], a[6], x.rows, y.rows},
          {a[1], a[3], a[5], a[7], x.length, y.length},
          a[8],
          x.channels,
          y.channels};
}

Conv conv_of(const Artifact &artifact, const Node &node) {
  return conv_of(artifact.graph.shape(node.inputs[0]), artifact.graph.shape(node.index + 1), node.attrs);
}

void conv_transposition(const void *context, uint32_t row, uint32_t column, uint32_t *to_row, uint32_t *code) {
  const Conv &c = *static_cast<const Conv *>(context);
  const uint32_t tap = column % c.window(), ky = tap / c.w.kernel, kx = tap % c.w.kernel;
  const uint32_t channels = c.in_channels / c.groups, group = row / (c.out_channels / c.groups);
  const uint32_t a = c.h.phase(ky), b = c.w.phase(kx);
  const bool met = a < c.h.phase_count() && b < c.w.phase_count();
  const uint32_t channel = group * channels + column / c.window();
  *to_row = met ? c.phase_row(a, b) + channel : c.phases() * c.in_channels;  // the last row is never asked for
  *code = row * c.window() + tap;
}

// What a node keeps.
struct ConvState {
  Conv conv;
  int32_t *offsets;              // [columns] into the input
  int32_t *gradient_offsets;     // scatter: [columns] into its gradient; else [out channels * window] into dy
  const Transposed *transposed;  // nullptr: no gradient of the input, or scattered
  bool scatter;
};

void fill_offsets(const Conv &c, const Place &in, int32_t *offsets) {
  for (uint32_t column = 0; column < c.columns(); ++column) {
    const uint32_t tap = column % c.window(), ky = tap / c.w.kernel, kx = tap % c.w.kernel;
    offsets[column] = int32_t(column / c.window() * in.plane + ky * c.h.dilation * in.pitch + kx * c.w.dilation);
  }
}

void fill_gradient_offsets(const Conv &c, const Place &dy, int32_t *offsets) {
  for (uint32_t o = 0; o < c.out_channels; ++o) {
    for (uint32_t tap = 0; tap < c.window(); ++tap) {
      const int32_t row = c.h.quotient(tap / c.w.kernel), column = c.w.quotient(tap % c.w.kernel);
      *offsets++ = int32_t(o * dy.plane) + row * int32_t(dy.pitch) + column;
    }
  }
}

// As many pieces of so many vectors as fit, at least one.
uint32_t pieces_in(uint32_t bytes, uint32_t lanes, uint64_t vectors) {
  const uint64_t pieces = bytes / (sizeof(float) * lanes * vectors);
  return pieces > 0 ? static_cast<uint32_t>(pieces) : 1;
}

Correlation forward_correlation(const ConvState &s, const Parameter &weight, const int32_t *offsets, const Place &in,
                                const Place &out, uint32_t lanes) {
  const Conv &c = s.conv;
  Correlation made = {};
  made.weight = &weight.matrix;
  made.rows = c.out_channels;
  made.values = weight.values;
  made.offsets = offsets;
  made.rows_per_base = c.out_channels / c.groups;
  made.shared_rows = weight.matrix.dense() ? made.rows_per_base : weight.matrix.block;
  made.base_step = c.in_channels / c.groups * in.plane;
  made.height = c.h.out;
  made.width = c.w.out;
  made.strip = pieces_in(kStripBytes, lanes, uint64_t(c.in_channels) * in.pitch * c.h.stride);
  made.block = pieces_in(kBlockBytes, lanes, in.plane) * c.window();
  made.in_origin = int32_t(in.origin) - int32_t(c.h.pad * in.pitch + c.w.pad);
  made.in_row = c.h.stride * in.pitch;
  made.in_column = c.w.stride;
  made.out_origin = out.origin;
  made.out_plane = out.plane;
  made.out_row = out.pitch;
  made.out_column = 1;
  return made;
}

// One phase (a, b) of the input's gradient.
Correlation phase_correlation(const ConvState &s, const Parameter &weight, uint32_t a, uint32_t b, const Place &dy,
                              const Place &dx, uint32_t lanes, bool accumulate) {
  const Conv &c = s.conv;
  Correlation made = {};
  made.transposed = s.transposed;
  made.first_row = c.phase_row(a, b);
  made.rows = c.in_channels;
  made.shared_rows = weight.matrix.dense() ? c.in_channels / c.groups : 1;
  made.shared_step = c.window();
  made.code_step = c.window();
  made.values = weight.values;
  made.offsets = s.gradient_offsets;
  made.rows_per_base = c.in_channels;
  made.height = c.h.phase_size(a);
  made.width = c.w.phase_size(b);
  made.strip = pieces_in(kStripBytes, lanes, uint64_t(c.out_channels) * dy.pitch);
  made.in_origin = int32_t(dy.origin);
  made.in_row = dy.pitch;
  made.in_column = 1;
  made.out_origin = dx.origin + a * dx.pitch + b;
  made.out_plane = dx.plane;
  made.out_row = c.h.stride * dx.pitch;
  made.out_column = c.w.stride;
  made.accumulate = accumulate;
  return made;
}

// Rows [first, last) alone.
void take_rows(Correlation *c, uint32_t first, uint32_t last) {
  c->first_row += first;
  c->rows = last - first;
  c->out_origin += first * c->out_plane;
  if (c->bias) c->bias += first;
}

uint64_t positions(const Conv &c) { return uint64_t(c.h.out) * c.w.out; }

void input_gradient(tkt_trainer &trainer, const NodeState &node, const ConvState &s, const Parameter &weight) {
  const Tensor dy = trainer.gradient(node.output);
  if (s.scatter) {
    const Contribution dx = added_contribution(trainer, node.inputs[0]);
    if (!dx.wanted) return;
    const Correlation c = forward_correlation(s, weight, s.gradient_offsets, dx.into.place, dy.place, trainer.lanes);
    return trainer.lane_kernels->scatter_correlation(c, dy, dx.into, trainer.groups);
  }
  const Contribution dx = contribution(trainer, node.inputs[0]);
  if (!dx.wanted) return;
  const uint64_t cost = weight.matrix.stored * positions(s.conv) * trainer.groups;
  range_in_parts(trainer, s.conv.in_channels, 4, cost, [&](uint32_t first, uint32_t last) {
    for (uint32_t a = 0; a < s.conv.h.phase_count(); ++a) {
      for (uint32_t b = 0; b < s.conv.w.phase_count(); ++b) {
        Correlation c = phase_correlation(s, weight, a, b, dy.place, dx.into.place, trainer.lanes, dx.accumulate);
        take_rows(&c, first, last);
        trainer.lane_kernels->correlate(c, dy, dx.into, trainer.groups);
      }
    }
  });
}

}  // namespace

const char *conv_broken_rule(const Artifact &artifact, const Node &node) {
  const Shape in = artifact.graph.shape(node.inputs[0]), out = artifact.graph.shape(node.index + 1);
  if (in.rank != out.rank || in.rank < 2 || in.rank > 3) return "needs input and output of rank 2 or 3";
  const Conv c = conv_of(artifact, node);
  if (in.rank == 2 && (c.h.kernel != 1 || c.h.stride != 1 || c.h.pad != 0 || c.h.dilation != 1)) {
    return "is one-dimensional, but has attributes of a height";
  }
  if (!c.h.sound() || !c.w.sound()) return "has a kernel, stride, padding or dilation that does not give its output";
  if (c.groups < 1 || c.in_channels % c.groups != 0 || c.out_channels % c.groups != 0) {
    return "has groups that do not divide its channels";
  }
  const Matrix weight = artifact.matrix(node.params[0]);
  if (weight.rows != c.out_channels || weight.cols != uint64_t(c.in_channels) / c.groups * c.window()) {
    return "has a weight of another shape";
  }
  if (c.out_channels / c.groups % weight.block != 0) return "has a weight in blocks that straddle its groups";
  if (node.param_count == 1) return nullptr;
  return artifact.matrix(node.params[1]).is_vector(weight.rows) ? nullptr : "has a bias of another shape";
}

void conv_halos(const Artifact &artifact, const Node &node, Halo *input, Halo *output_gradient) {
  const Conv c = conv_of(artifact, node);
  *input = {uint16_t(c.h.pad), uint16_t(c.h.behind()), uint16_t(c.w.pad), uint16_t(c.w.behind())};
  uint32_t top, bottom, left, right;
  c.h.gradient_reach(&top, &bottom);
  c.w.gradient_reach(&left, &right);
  *output_gradient = {uint16_t(top), uint16_t(bottom), uint16_t(left), uint16_t(right)};
}

void *conv_lay_out(const Artifact &artifact, const Node &node, const MemoryPlan &plan, Arena &arena) {
  const Conv c = conv_of(artifact, node);
  const Matrix w = artifact.matrix(node.params[0]);
  const bool input_gradient = plan.needs_gradient[node.inputs[0]];
  const uint32_t gradient_offsets = !input_gradient ? 0 : plan.scatter ? c.columns() : c.out_channels * c.window();
  ConvState *s = arena.take<ConvState>(kIndex, 1);
  int32_t *offsets = arena.take<int32_t>(kIndex, c.columns());
  int32_t *of_gradient = arena.take<int32_t>(kIndex, gradient_offsets);
  // Of a dense weight the input channels of a group differ by where their weights lie alone.
  const Transposition swapped = {c.phases() * c.in_channels + 1, c.out_channels * c.window(),
                                 w.dense() ? c.window() : w.cols, conv_transposition, &c};
  const Transposed *transposed = input_gradient && !plan.scatter ? lay_out_transposed(w, swapped, arena) : nullptr;
  if (s == nullptr) return nullptr;
  *s = {c, offsets, of_gradient, transposed, plan.scatter};
  fill_offsets(c, plan.place(artifact.graph, node.inputs[0]), offsets);
  if (input_gradient && plan.scatter) fill_offsets(c, plan.gradient_place(artifact.graph, node.inputs[0]), of_gradient);
  if (transposed) fill_gradient_offsets(c, plan.gradient_place(artifact.graph, node.index + 1), of_gradient);
  return s;
}

void conv_forward(tkt_trainer &trainer, const NodeState &node) {
  const ConvState &s = *static_cast<const ConvState *>(node.own);
  const Tensor x = trainer.data(node.inputs[0]), y = trainer.data(node.output);
  const Parameter &weight = trainer.params[node.params[0]];
  const uint64_t vectors = positions(s.conv) * trainer.groups;
  rows_in_parts(trainer, weight.matrix, vectors, [&](uint32_t first, uint32_t last) {
    Correlation c = forward_correlation(s, weight, s.offsets, x.place, y.place, trainer.lanes);
    if (node.param_count == 2) c.bias = trainer.params[node.params[1]].values;
    take_rows(&c, first, last);
    trainer.lane_kernels->correlate(c, x, y, trainer.groups);
  });
}

// The input's gradient first: it needs the weights as they were.
void conv_backward(tkt_trainer &trainer, const NodeState &node) {
  const ConvState &s = *static_cast<const ConvState *>(node.own);
  const Parameter &weight = trainer.params[node.params[0]];
  const Tensor x = trainer.data(node.inputs[0]), dy = trainer.gradient(node.output);
  input_gradient(trainer, node, s, weight);
  const uint64_t vectors = positions(s.conv) * trainer.groups;
  use_gradients(trainer, node.params[0], vectors, [&](uint32_t first, uint32_t last, float *out) {
    Correlation c = forward_correlation(s, weight, s.offsets, x.place, dy.place, trainer.lanes);
    take_rows(&c, first, last);
    trainer.lane_kernels->correlation_gradient(c, x, dy, trainer.groups, out);
  });
  if (node.param_count == 1) return;
  use_gradients(trainer, node.params[1], vectors, [&](uint32_t first, uint32_t last, float *out) {
    trainer.lane_kernels->channel_sums(dy, trainer.groups, first, last, out);
  });
}

}  // namespace tkt
