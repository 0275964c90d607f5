// Works on the stack alone: it runs before there is an arena.
#include "core/memory_plan.h"

#include <string.h>

#include "core/kernels.h"
#include "core/operators.h"

namespace tkt {
namespace {

constexpr uint64_t kMaxFloats = 1u << 28;  // of one buffer and sample, zeros included
constexpr uint64_t kMaxUnits = 0xFFFFFFFFu;

struct Life {
  uint16_t begin, end;  // the first and the last moment of use
};

bool overlap(Life a, Life b) { return a.begin <= b.end && b.begin <= a.end; }

// The data or the gradient of a root.
struct Piece {
  uint32_t units, offset;
  Life life;
  uint16_t root;
  bool is_gradient;
};

uint64_t floats_of(const Shape &shape, const Halo &halo) {
  const Place flat = place_of(shape, {0, 0, 0, 0});
  return uint64_t(flat.channels) * (uint64_t(halo.top) + flat.rows + halo.bottom) *
         (uint64_t(halo.left) + flat.length + halo.right);
}

class Planner {
 public:
  Planner(const Artifact &artifact, MemoryPlan *plan)
      : a_(artifact), nodes_(artifact.graph.node_count), lanes_(plan->lanes), p_(*plan) {}

  bool run() {
    Node node;
    begin();
    for (Nodes nodes(a_.graph); nodes.next(&node);) gather(node);
    for (Nodes nodes(a_.graph); nodes.next(&node);) share(node);
    return collect() && place_all();
  }

 private:
  uint16_t forward_time(uint32_t node) const { return static_cast<uint16_t>(node + 1); }
  uint16_t loss_time() const { return static_cast<uint16_t>(nodes_ + 1); }
  uint16_t backward_time(uint32_t node) const { return static_cast<uint16_t>(2 * nodes_ + 1 - node); }

  void begin() {
    p_.scatter = lanes_ == 1;
    for (uint32_t b = 0; b <= nodes_; ++b) {
      const uint16_t own = static_cast<uint16_t>(b), last = b == 0 ? uint16_t(0) : backward_time(b - 1);
      p_.data.root[b] = p_.gradient.root[b] = own;
      p_.data.halo[b] = p_.gradient.halo[b] = {0, 0, 0, 0};
      p_.needs_gradient[b] = false;
      reads_[b] = 0;
      stays_flat_[b] = false;
      data_[b] = {own, own};  // buffer b is written at moment b
      gradient_[b] = {last, last};
    }
    data_[nodes_].end = gradient_[nodes_].begin = loss_time();
  }

  // What one node asks of its buffers. Nodes come in order, so what lies before a node is known.
  void gather(const Node &node) {
    const Operator &op = *find_operator(node.op);
    const uint32_t output = node.index + 1;
    const uint16_t back = backward_time(node.index);
    bool needs = node.param_count > op.state_params;
    for (uint32_t i = 0; i < node.input_count; ++i) needs |= p_.needs_gradient[node.inputs[i]];
    p_.needs_gradient[output] = needs;
    if (needs && (op.flags & kKeepsOutput)) data_[output].end = larger(data_[output].end, back);
    for (uint32_t i = 0; i < node.input_count; ++i) {
      const uint32_t b = node.inputs[i];
      const bool kept = needs && (op.flags & kKeepsInputs);
      ++reads_[b];
      data_[b].end = larger(data_[b].end, kept ? back : forward_time(node.index));
      if (needs && gradient_[b].begin > back) gradient_[b].begin = back;
    }
    if (op.halos == nullptr) return;
    Halo input = {0, 0, 0, 0}, output_gradient = {0, 0, 0, 0};
    op.halos(a_, node, &input, &output_gradient);
    p_.data.halo[node.inputs[0]].widen(input);
    // Scattered gradients fall on the zeros around the input; gathered ones come from the zeros around the output's.
    if (p_.scatter) {
      p_.gradient.halo[node.inputs[0]].widen(input);
    } else if (p_.needs_gradient[node.inputs[0]]) {
      p_.gradient.halo[output].widen(output_gradient);
    }
  }

  static uint16_t larger(uint16_t a, uint16_t b) { return a > b ? a : b; }

  // Lets the output, and the first input's gradient, lie where the other one lies.
  void share(const Node &node) {
    const Operator &op = *find_operator(node.op);
    const uint32_t output = node.index + 1, input = node.inputs[0];
    const uint16_t data_root = p_.data.root[input], gradient_root = p_.gradient.root[input];
    const bool view = (op.flags & kView) != 0, alone = reads_[input] == 1, same = same_shape(input, output);
    const bool dead = data_[data_root].end <= forward_time(node.index);  // nothing reads the input after this node
    if (view || ((op.flags & kOverInput) && same && alone && dead)) join(p_.data, data_, data_root, output, view);
    const bool over = (op.flags & kGradientOverOutput) && same;
    if (alone && p_.needs_gradient[input] && (view || over)) join(p_.gradient, gradient_, gradient_root, output, view);
  }

  bool same_shape(uint32_t a, uint32_t b) const {
    const Shape first = a_.graph.shape(a), second = a_.graph.shape(b);
    return memcmp(&first, &second, sizeof first) == 0;
  }

  // A view has another shape, so that neither it nor what it views can have zeros around.
  void join(MemoryPlan::Part &part, Life *lives, uint16_t root, uint32_t buffer, bool view) {
    bool *flat = &part == &p_.data ? stays_flat_ : gradient_stays_flat_;
    Halo halo = part.halo[root];
    halo.widen(part.halo[buffer]);
    if ((view || flat[root]) && !halo.none()) return;
    part.root[buffer] = root;
    part.halo[root] = halo;
    flat[root] |= view;
    lives[root].begin = lives[root].begin < lives[buffer].begin ? lives[root].begin : lives[buffer].begin;
    lives[root].end = larger(lives[root].end, lives[buffer].end);
  }

  bool collect() {
    for (uint32_t b = 0; b <= nodes_; ++b) {
      if (p_.data.root[b] == b && !add_piece(p_.data, data_[b], b, false)) return false;
      if (p_.needs_gradient[b] && p_.gradient.root[b] == b && !add_piece(p_.gradient, gradient_[b], b, true))
        return false;
    }
    return true;
  }

  bool add_piece(const MemoryPlan::Part &part, Life life, uint32_t root, bool is_gradient) {
    const uint64_t floats = floats_of(a_.graph.shape(root), part.halo[root]);
    if (floats > kMaxFloats) return false;
    const uint64_t units = (floats * lanes_ + kUnitFloats - 1) / kUnitFloats;
    Piece piece = {static_cast<uint32_t>(units), 0, life, static_cast<uint16_t>(root), is_gradient};
    uint32_t at = count_++;
    for (; at > 0 && pieces_[at - 1].units < piece.units; --at) pieces_[at] = pieces_[at - 1];
    pieces_[at] = piece;
    return true;
  }

  // `placed_` numbers the pieces that have an offset, by offset.
  bool place_all() {
    uint64_t units = 0;
    for (uint32_t i = 0; i < count_; ++i) {
      Piece &piece = pieces_[i];
      uint64_t offset = 0;
      for (uint32_t k = 0; k < i; ++k) {
        const Piece &other = pieces_[placed_[k]];
        if (!overlap(piece.life, other.life)) continue;
        if (offset + piece.units <= other.offset) break;
        const uint64_t behind = uint64_t(other.offset) + other.units;
        offset = offset > behind ? offset : behind;
      }
      if (offset + piece.units > kMaxUnits) return false;
      units = units > offset + piece.units ? units : offset + piece.units;
      piece.offset = static_cast<uint32_t>(offset);
      (piece.is_gradient ? p_.gradient : p_.data).offset[piece.root] = piece.offset;
      uint32_t at = i;
      for (; at > 0 && pieces_[placed_[at - 1]].offset > piece.offset; --at) placed_[at] = placed_[at - 1];
      placed_[at] = static_cast<uint16_t>(i);
    }
    p_.units = static_cast<uint32_t>(units);
    return true;
  }

  const Artifact &a_;
  const uint32_t nodes_, lanes_;
  MemoryPlan &p_;
  Life data_[kMaxNodes + 1], gradient_[kMaxNodes + 1];
  uint16_t reads_[kMaxNodes + 1];
  bool stays_flat_[kMaxNodes + 1], gradient_stays_flat_[kMaxNodes + 1] = {};
  Piece pieces_[2 * (kMaxNodes + 1)];
  uint16_t placed_[2 * (kMaxNodes + 1)];
  uint32_t count_ = 0;
};

}  // namespace

bool make_memory_plan(const Artifact &artifact, uint32_t samples, MemoryPlan *plan) {
  plan->lanes = lanes_for(samples);
  plan->groups = (samples + plan->lanes - 1) / plan->lanes;
  return Planner(artifact, plan).run();
}

}  // namespace tkt
