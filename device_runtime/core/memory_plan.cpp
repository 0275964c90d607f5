// Works on the stack alone: it runs before there is an arena.
#include "core/memory_plan.h"

#include <string.h>

#include "core/kernels.h"
#include "core/operators.h"

namespace tkt {
namespace {

constexpr uint64_t kMaxFloats = 1u << 28;  // of one buffer and sample, zeros included
constexpr uint64_t kMaxUnits = 0xFFFFFFFFu;

// Into how many segments of about equal size the nodes are cut, with linear and conv run once, then with everything twice.
constexpr uint32_t kSegments[] = {2, 3, 4, 6, 8, 12, 16, 24, 32, 48};
constexpr uint32_t kSegmentCounts = sizeof kSegments / sizeof kSegments[0];
static_assert(kRecomputations == 1 + 2 * kSegmentCounts, "none, and each number of segments in two ways");

struct Life {
  uint16_t begin, end;  // the first and the last moment of use; begin > end: never

  bool none() const { return begin > end; }
  void widen(uint16_t from, uint16_t to) {
    begin = begin < from ? begin : from;
    end = end > to ? end : to;
  }
};

constexpr Life kNever = {0xFFFF, 0};
constexpr uint16_t kNoPiece = 0xFFFF;

bool overlap(Life a, Life b) { return a.begin <= b.end && b.begin <= a.end; }

// What is remembered of a buffer while planning.
enum Mark : uint8_t {
  kRead = 1,
  kReadTwice = 2,
  kWanted = 4,  // the way back reads the data
  kStaysFlat = 8,
  kGradientStaysFlat = 16
};

enum PieceKind : uint16_t { kData, kGradient, kAgain, kHalf, kPieceKinds };

// What a root has of one kind.
struct Piece {
  uint32_t units;
  uint16_t name;  // of root and kind
  uint16_t next;  // the piece at the next offset, once it has an offset itself

  uint32_t root() const { return name / kPieceKinds; }
  uint32_t kind() const { return name % kPieceKinds; }
};

uint64_t floats_of(const Shape &shape, const Halo &halo) {
  const Place flat = place_of(shape, {0, 0, 0, 0});
  return uint64_t(flat.channels) * (uint64_t(halo.top) + flat.rows + halo.bottom) *
         (uint64_t(halo.left) + flat.length + halo.right);
}

class Planner {
 public:
  Planner(const Artifact &artifact, uint32_t recomputation, bool halves, MemoryPlan *plan)
      : a_(artifact),
        nodes_(artifact.graph.node_count),
        recomputation_(recomputation),
        halves_(halves),
        p_(*plan),
        offsets_{plan->data.offset, plan->gradient.offset, plan->again, plan->half} {}

  bool run() {
    Node node;
    begin();
    for (Nodes nodes(a_.graph); node_at_[nodes.index()] = nodes.offset(), nodes.next(&node);) gather(node);
    if (recomputation_ > 0) cut();
    for (Nodes nodes(a_.graph); nodes.next(&node);) keep(node);
    for (uint32_t i = nodes_; i-- > 0;) {
      Nodes(a_.graph, i, node_at_[i]).next(&node);
      want(node);
    }
    for (Nodes nodes(a_.graph); nodes.next(&node);) live(node);
    for (Nodes nodes(a_.graph); nodes.next(&node);) share(node);
    return collect() && place_all();
  }

 private:
  uint16_t forward_time(uint32_t node) const { return static_cast<uint16_t>(node + 1); }
  uint16_t loss_time() const { return static_cast<uint16_t>(nodes_ + 1); }
  // On the way back a segment has two moments a node: all of them again, then all of them backward.
  uint16_t again_time(uint32_t node) const {
    return static_cast<uint16_t>(nodes_ + 2 + 2 * (nodes_ - segment_end_) + node - segment_begin_);
  }
  uint16_t backward_time(uint32_t node) const {
    return static_cast<uint16_t>(again_time(segment_end_ - 1) + segment_end_ - node);
  }

  void begin() {
    for (uint32_t b = 0; b <= nodes_; ++b) {
      const uint16_t own = static_cast<uint16_t>(b);
      p_.data.root[b] = p_.gradient.root[b] = own;
      p_.data.halo[b] = p_.gradient.halo[b] = {0, 0, 0, 0};
      p_.needs_gradient[b] = false;
      p_.use[b] = 0;
      marks_[b] = 0;
      lives_[kData][b] = {own, own};  // buffer b is written at moment b
      lives_[kHalf][b] = {own, 0};
      lives_[kGradient][b] = lives_[kAgain][b] = kNever;
    }
    lives_[kData][nodes_].end = loss_time();
    lives_[kGradient][nodes_] = {loss_time(), loss_time()};
    p_.use[0] = kKept | kBeginsSegment;
  }

  // What one node asks of its buffers on the way forward. Nodes come in order, so what lies before a node is known.
  void gather(const Node &node) {
    const Operator &op = *find_operator(node.op);
    const uint32_t output = node.index + 1;
    bool needs = node.param_count > op.state_params;
    for (uint32_t i = 0; i < node.input_count; ++i) {
      const uint32_t b = node.inputs[i];
      needs |= p_.needs_gradient[b];
      marks_[b] |= marks_[b] & kRead ? kReadTwice : kRead;
      lives_[kData][b].widen(forward_time(node.index), forward_time(node.index));
    }
    p_.needs_gradient[output] = needs;
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

  bool runs_heavy_once() const { return recomputation_ <= kSegmentCounts; }

  // The floats a sample that a segment may drop of what a node writes.
  uint64_t droppable(const Operator &op, uint32_t buffer) const {
    return runs_heavy_once() && (op.flags & kHeavy) ? 0 : a_.graph.elements(buffer);
  }

  // Begins a segment once the one before is as large as wished, at the place behind it that the least data crosses.
  void cut() {
    uint64_t total = 0, inside = 0, behind = 0, crossing = 0, least = ~uint64_t(0);
    uint32_t at = 0;
    Node node;
    for (Nodes nodes(a_.graph); nodes.next(&node);) total += droppable(*find_operator(node.op), node.index + 1);
    const uint64_t wished = total / kSegments[(recomputation_ - 1) % kSegmentCounts];
    for (Nodes nodes(a_.graph); nodes.next(&node);) {
      if (node.index > 0 && crossing <= least) {
        least = crossing;
        at = node.index;
        behind = 0;
      }
      if (inside >= wished && at > 0) {
        p_.use[at] |= kBeginsSegment;
        inside = behind;
        least = ~uint64_t(0);
        at = 0;
      }
      const uint64_t floats = droppable(*find_operator(node.op), node.index + 1);
      inside += floats;
      behind += floats;
      crossing += floats - last_read(node);
    }
  }

  // The floats that no later node reads.
  uint64_t last_read(const Node &node) const {
    uint64_t floats = 0;
    Node writer;
    for (uint32_t i = 0; i < node.input_count; ++i) {
      const uint32_t b = node.inputs[i];
      bool last = b > 0 && lives_[kData][b].end == forward_time(node.index);
      for (uint32_t k = 0; k < i; ++k) last &= node.inputs[k] != b;
      if (!last) continue;
      Nodes(a_.graph, b - 1, node_at_[b - 1]).next(&writer);
      floats += droppable(*find_operator(writer.op), b);
    }
    return floats;
  }

  // Nodes are visited in order.
  void enter_segment(uint32_t node) {
    if (!(p_.use[node] & kBeginsSegment)) return;
    segment_begin_ = segment_end_ = node;
    do ++segment_end_;
    while (segment_end_ < nodes_ && !(p_.use[segment_end_] & kBeginsSegment));
  }

  // Decides which data is not dropped.
  void keep(const Node &node) {
    enter_segment(node.index);
    const Operator &op = *find_operator(node.op);
    const uint32_t output = node.index + 1;
    const bool crosses = lives_[kData][output].end > segment_end_, run_once = segment_end_ == nodes_;
    const bool heavy = runs_heavy_once() && (op.flags & kHeavy);
    const bool view_of_kept = (op.flags & kView) && (p_.use[node.inputs[0]] & kKept);
    if (crosses || run_once || heavy || view_of_kept) p_.use[output] |= kKept;
  }

  // What the way back reads; nodes come in reverse order, so that all readers of a node's output are known.
  void want(const Node &node) {
    const Operator &op = *find_operator(node.op);
    const uint32_t output = node.index + 1;
    const bool needs = p_.needs_gradient[output];
    if ((op.flags & kView) && (p_.use[output] & kKept)) p_.use[node.inputs[0]] |= kKept;  // it is the same data
    const bool wanted = (marks_[output] & kWanted) || (needs && (op.flags & kKeepsOutput));
    const bool again = wanted && !(p_.use[output] & kKept);
    if (again) p_.use[output] |= kRecomputed;
    if (!again && !(needs && (op.flags & kKeepsInputs))) return;
    for (uint32_t i = 0; i < node.input_count; ++i) marks_[node.inputs[i]] |= kWanted;
  }

  // The lives on the way back.
  void live(const Node &node) {
    enter_segment(node.index);
    const Operator &op = *find_operator(node.op);
    const uint32_t output = node.index + 1;
    const uint16_t back = backward_time(node.index), again = again_time(node.index);
    const bool needs = p_.needs_gradient[output], recomputed = (p_.use[output] & kRecomputed) != 0;
    if (recomputed) lives_[kAgain][output].widen(again, again);
    if (needs && (op.flags & kKeepsOutput)) read_back(output, back);
    if (needs) lives_[kGradient][output].widen(back, back);
    for (uint32_t i = 0; i < node.input_count; ++i) {
      const uint32_t b = node.inputs[i];
      if (recomputed) read_back(b, again);
      if (needs && (op.flags & kKeepsInputs)) read_back(b, back);
      if (needs) lives_[kGradient][b].widen(back, back);
    }
  }

  void read_back(uint32_t buffer, uint16_t time) {
    const bool kept = (p_.use[buffer] & kKept) != 0;
    // What lies before every parameter stays exact: an embedding's samples are numbers of rows.
    if (kept && halves_ && p_.needs_gradient[buffer]) p_.use[buffer] |= kHalved;
    lives_[p_.lives_again(buffer) ? kAgain : kData][buffer].widen(time, time);
  }

  // Lets the output, and the first input's gradient, lie where the other one lies.
  void share(const Node &node) {
    enter_segment(node.index);
    const Operator &op = *find_operator(node.op);
    const uint32_t output = node.index + 1, input = node.inputs[0];
    const uint16_t data_root = p_.data.root[input], gradient_root = p_.gradient.root[input];
    const bool view = (op.flags & kView) != 0, alone = !(marks_[input] & kReadTwice), same = same_shape(input, output);
    // Nothing reads the input after this node, neither on the way forward nor when it runs again.
    const Life again = lives_[kAgain][data_root];
    const bool dead = lives_[kData][data_root].end <= forward_time(node.index) && !(p_.use[data_root] & kHalved) &&
                      (again.none() || again.end <= again_time(node.index));
    if (view || ((op.flags & kOverInput) && same && alone && dead)) join_data(data_root, output, view);
    const bool over = (op.flags & kGradientOverOutput) && same;
    if (alone && p_.needs_gradient[input] && (view || over)) {
      join(p_.gradient, kGradient, kGradientStaysFlat, gradient_root, output, view);
    }
  }

  bool same_shape(uint32_t a, uint32_t b) const {
    const Shape first = a_.graph.shape(a), second = a_.graph.shape(b);
    return memcmp(&first, &second, sizeof first) == 0;
  }

  void join_data(uint16_t root, uint32_t buffer, bool view) {
    if (!join(p_.data, kData, kStaysFlat, root, buffer, view)) return;
    p_.use[root] |= p_.use[buffer] & kHalved;
    const Life again = lives_[kAgain][buffer];
    lives_[kAgain][root].widen(again.begin, again.end);
    lives_[kHalf][root].begin = static_cast<uint16_t>(buffer);  // halves are made of what stays
  }

  // A view has another shape, so that neither it nor what it views can have zeros around.
  bool join(MemoryPlan::Part &part, PieceKind kind, Mark flat, uint16_t root, uint32_t buffer, bool view) {
    Halo halo = part.halo[root];
    halo.widen(part.halo[buffer]);
    if ((view || (marks_[root] & flat)) && !halo.none()) return false;
    part.root[buffer] = root;
    part.halo[root] = halo;
    if (view) marks_[root] |= flat;
    lives_[kind][root].widen(lives_[kind][buffer].begin, lives_[kind][buffer].end);
    return true;
  }

  bool collect() {
    for (uint32_t b = 0; b <= nodes_; ++b) {
      if (p_.needs_gradient[b] && p_.gradient.root[b] == b && !add_piece(p_.gradient, b, kGradient)) return false;
      if (p_.data.root[b] != b) continue;
      if (!add_piece(p_.data, b, kData)) return false;
      if (lives_[kAgain][b].none()) continue;
      if (!add_piece(p_.data, b, kAgain)) return false;
      if (!(p_.use[b] & kHalved)) continue;
      p_.use[lives_[kHalf][b].begin] |= kWritesHalf;
      lives_[kHalf][b].end = lives_[kAgain][b].begin;
      if (!add_piece(p_.data, b, kHalf)) return false;
    }
    return true;
  }

  bool add_piece(const MemoryPlan::Part &part, uint32_t root, PieceKind kind) {
    const uint64_t floats = floats_of(a_.graph.shape(root), part.halo[root]);
    if (floats > kMaxFloats) return false;
    const uint64_t a_unit = kind == kHalf ? 2 * kUnitFloats : kUnitFloats;
    const uint64_t units = (floats * p_.lanes + a_unit - 1) / a_unit;
    const Piece piece = {static_cast<uint32_t>(units), static_cast<uint16_t>(root * kPieceKinds + kind), 0};
    uint32_t at = count_++;
    for (; at > 0 && pieces_[at - 1].units < piece.units; --at) pieces_[at] = pieces_[at - 1];
    pieces_[at] = piece;
    return true;
  }

  uint32_t &offset_of(const Piece &piece) { return offsets_[piece.kind()][piece.root()]; }
  Life life_of(const Piece &piece) const { return lives_[piece.kind()][piece.root()]; }

  // The pieces that have an offset are a chain by offset.
  bool place_all() {
    uint64_t units = 0;
    uint16_t first = kNoPiece;
    for (uint32_t i = 0; i < count_; ++i) {
      Piece &piece = pieces_[i];
      const Life life = life_of(piece);
      uint64_t offset = 0;
      for (uint32_t k = first; k != kNoPiece; k = pieces_[k].next) {
        const Piece &other = pieces_[k];
        if (!overlap(life, life_of(other))) continue;
        if (offset + piece.units <= offset_of(other)) break;
        const uint64_t behind = uint64_t(offset_of(other)) + other.units;
        offset = offset > behind ? offset : behind;
      }
      if (offset + piece.units > kMaxUnits) return false;
      units = units > offset + piece.units ? units : offset + piece.units;
      offset_of(piece) = static_cast<uint32_t>(offset);
      uint16_t *link = &first;
      while (*link != kNoPiece && offset_of(pieces_[*link]) <= offset) link = &pieces_[*link].next;
      piece.next = *link;
      *link = static_cast<uint16_t>(i);
    }
    p_.units = static_cast<uint32_t>(units);
    return true;
  }

  const Artifact &a_;
  const uint32_t nodes_, recomputation_;
  const bool halves_;
  MemoryPlan &p_;
  uint32_t *const offsets_[kPieceKinds];
  uint32_t segment_begin_ = 0, segment_end_ = 0;  // of the node that is visited
  Life lives_[kPieceKinds][kMaxNodes + 1];
  uint8_t marks_[kMaxNodes + 1];  // Mark
  union {
    uint32_t node_at_[kMaxNodes + 1];  // where nodes lie in GRAPH, until there are pieces
    Piece pieces_[kPieceKinds * (kMaxNodes + 1)];
  };
  uint32_t count_ = 0;
};

}  // namespace

bool make_memory_plan(const Artifact &artifact, uint32_t samples, uint32_t recomputation, bool halves,
                      MemoryPlan *plan) {
  plan->lanes = lanes_for(samples);
  plan->groups = (samples + plan->lanes - 1) / plan->lanes;
  plan->scatter = plan->lanes == 1;
  return Planner(artifact, recomputation, halves, plan).run();
}

}  // namespace tkt
