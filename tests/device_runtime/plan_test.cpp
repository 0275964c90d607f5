// Plans of memory, from inside: for every recomputation, with and without half floats, nothing is read that another piece
// has overwritten, and training gives the same bits. The arguments are artifacts.
#include "core/budget.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/kernels.h"
#include "core/operators.h"
#include "core/plan.h"
#include "core/trainer.h"

using namespace tkt;

namespace {

constexpr uint32_t kMaxSamples = 20, kMaxInputs = 4096, kSteps = 3;
constexpr uint32_t kMaxTrainedUnits = 1u << 13;  // what trains in no time

const char *g_file;
alignas(8) uint8_t g_bytes[1 << 22];
size_t g_size;
uint64_t g_random;
uint32_t g_plans, g_recomputed, g_halved, g_trainings;

uint32_t next_random() {
  g_random ^= g_random << 13;
  g_random ^= g_random >> 7;
  g_random ^= g_random << 17;
  return uint32_t(g_random >> 20);
}

void require(bool sound, const char *what, uint32_t recomputation, uint32_t detail) {
  if (sound) return;
  fprintf(stderr, "plan_test: %s, recomputation %u: %s (%u)\n", g_file, unsigned(recomputation), what,
          unsigned(detail));
  exit(1);
}

void read_file(const char *path) {
  g_file = path;
  g_random = 88172645463325252u;
  FILE *file = fopen(path, "rb");
  require(file != nullptr, "cannot be read", 0, 0);
  g_size = fread(g_bytes, 1, sizeof g_bytes, file);
  fclose(file);
}

// The memory of a step, each unit of it with the name of what was written there last.
class Memory {
 public:
  Memory(const Artifact &artifact, const MemoryPlan &plan, uint32_t recomputation)
      : a_(artifact), p_(plan), r_(recomputation), units_(static_cast<uint32_t *>(calloc(plan.units, 4))) {
    for (uint32_t b = 0; b <= a_.graph.node_count; ++b) content_[b] = b + 1;
  }
  ~Memory() { free(units_); }

  // The order of step.cpp, and which data operators read by their flags; not when pieces live.
  void run() {
    Node node;
    write(data(0), content_[0]);
    for (Nodes nodes(a_.graph); nodes.next(&node);) forward(node, false);
    read(data(a_.graph.node_count), content_[a_.graph.node_count], "the output");
    write_gradient(a_.graph.node_count);
    for (uint32_t end = a_.graph.node_count, first; end > 0; end = first) {
      first = end - 1;
      while (!(p_.use[first] & kBeginsSegment)) --first;
      for (Nodes nodes(a_.graph); nodes.next(&node);) {
        if (node.index >= first && node.index < end && (p_.use[node.index + 1] & kRecomputed)) forward(node, true);
      }
      for (uint32_t i = end; i-- > first;) {
        for (Nodes nodes(a_.graph); nodes.next(&node) && node.index < i;) continue;
        backward(node);
      }
    }
  }

 private:
  struct Piece {
    uint32_t offset, units;
  };
  static constexpr uint32_t kGradient = 1u << 16, kHalf = 1u << 17;

  uint32_t units_of(const Place &place) const { return (place.size * p_.lanes + kUnitFloats - 1) / kUnitFloats; }
  Piece data(uint32_t b, bool returning = false) const {
    const uint32_t root = p_.data.root[b];
    return {returning && p_.lives_again(b) ? p_.again[root] : p_.data.offset[root], units_of(p_.place(a_.graph, b))};
  }
  Piece half(uint32_t b) const { return {p_.half[p_.data.root[b]], (units_of(p_.place(a_.graph, b)) + 1) / 2}; }
  Piece gradient(uint32_t b) const {
    return {p_.gradient.offset[p_.gradient.root[b]], units_of(p_.gradient_place(a_.graph, b))};
  }

  void write(const Piece &piece, uint32_t name) {
    require(uint64_t(piece.offset) + piece.units <= p_.units, "a piece lies outside", r_, name);
    for (uint32_t i = 0; i < piece.units; ++i) units_[piece.offset + i] = name;
  }
  void read(const Piece &piece, uint32_t name, const char *what) const {
    for (uint32_t i = 0; i < piece.units; ++i) require(units_[piece.offset + i] == name, what, r_, name);
  }
  void write_gradient(uint32_t b) {
    write(gradient(b), kGradient | b);
    written_[b] = true;
  }

  void expand(uint32_t b) {
    const uint32_t root = p_.data.root[b];
    if (!(p_.use[b] & kHalved) || expanded_[root]) return;
    read(half(b), kHalf | content_[b], "half floats");
    write(data(b, true), content_[b]);
    expanded_[root] = true;
  }

  void forward(const Node &node, bool returning) {
    const uint32_t output = node.index + 1;
    for (uint32_t i = 0; i < node.input_count; ++i) {
      if (returning) expand(node.inputs[i]);
      read(data(node.inputs[i], returning), content_[node.inputs[i]], "an input");
    }
    const Piece from = data(node.inputs[0], returning), to = data(output, returning);
    if ((find_operator(node.op)->flags & kView) && from.offset == to.offset) {
      content_[output] = content_[node.inputs[0]];
    } else {
      write(to, content_[output]);
    }
    if (!returning && (p_.use[output] & kWritesHalf)) write(half(output), kHalf | content_[output]);
  }

  void backward(const Node &node) {
    const uint32_t output = node.index + 1, flags = find_operator(node.op)->flags;
    if (!p_.needs_gradient[output]) return;
    if (flags & kKeepsOutput) expand(output);
    if (flags & kKeepsOutput) read(data(output, true), content_[output], "an output kept");
    for (uint32_t i = 0; i < node.input_count && (flags & kKeepsInputs); ++i) {
      expand(node.inputs[i]);
      read(data(node.inputs[i], true), content_[node.inputs[i]], "an input kept");
    }
    read(gradient(output), kGradient | output, "a gradient");
    for (uint32_t i = node.input_count; i-- > 0;) {
      const uint32_t b = node.inputs[i];
      if (!p_.needs_gradient[b]) continue;
      if (written_[b]) read(gradient(b), kGradient | b, "a gradient that is added to");
      write_gradient(b);
    }
  }

  const Artifact &a_;
  const MemoryPlan &p_;
  const uint32_t r_;
  uint32_t *units_, content_[kMaxNodes + 1];
  bool written_[kMaxNodes + 1] = {}, expanded_[kMaxNodes + 1] = {};
};

// The units of the last plan.
uint32_t check_plans(const Artifact &artifact) {
  static MemoryPlan p;
  const uint32_t samples[] = {1, 5, 16};
  for (uint32_t count : samples) {
    for (uint32_t r = 0; r < kRecomputations; ++r) {
      for (uint32_t halves = 0; halves < 2; ++halves) {
        require(make_memory_plan(artifact, count, r, halves != 0, &p), "no plan", r, count);
        Memory(artifact, p, r).run();
        ++g_plans;
        for (uint32_t b = 0; b <= artifact.graph.node_count; ++b) {
          g_recomputed += (p.use[b] & kRecomputed) != 0;
          g_halved += (p.use[b] & kWritesHalf) != 0;
        }
      }
    }
  }
  return p.units;
}

// What a short training leaves.
struct Outcome {
  float losses[kSteps], *values;
};

float g_samples[kMaxSamples * kMaxInputs];
union {
  int32_t labels[kMaxSamples];
  float floats[kMaxSamples * kMaxInputs];
} g_targets;

void make_data(const Artifact &a) {
  Node first;
  Nodes(a.graph).next(&first);
  const bool numbers = find_operator(first.op)->check_samples != nullptr;
  const uint32_t rows = numbers ? a.matrix(first.params[0]).rows : 0;
  for (uint32_t i = 0; i < kMaxSamples * a.graph.elements(0); ++i) {
    g_samples[i] = numbers ? float(next_random() % rows) : float(int32_t(next_random() % 4001) - 2000) / 1000;
  }
  const uint32_t outputs = a.graph.output_count();
  for (uint32_t i = 0; i < kMaxSamples * (a.graph.loss == kCrossEntropy ? 1 : outputs); ++i) {
    if (a.graph.loss == kCrossEntropy) {
      g_targets.labels[i] = int32_t(next_random() % outputs);
    } else {
      g_targets.floats[i] = float(next_random() % 2);
    }
  }
}

// In an arena of exactly the bytes counted, full of NaN before.
Outcome train(const tkt_options &options, uint32_t recomputation, bool halves, uint32_t kernels) {
  static Planned p;
  tkt_error error = {};
  require(plan(g_bytes, g_size, &options, &p, &error) == TKT_OK, error.text, recomputation, 0);
  require(make_memory_plan(p.artifact, part_of(options), recomputation, halves, &p.memory), "no plan", recomputation,
          0);
  Arena counted;
  lay_out(p.artifact, p.options, p.memory, counted, nullptr, nullptr);
  void *memory = malloc(size_t(counted.total()));
  memset(memory, 0xFF, size_t(counted.total()));
  Arena arena(memory);
  tkt_trainer *trainer = nullptr;
  require(lay_out(p.artifact, p.options, p.memory, arena, &trainer, &error) == TKT_OK, error.text, recomputation, 0);
  trainer->kernels = find_kernels(kernels);
  trainer->lane_kernels = &trainer->kernels->lanes[lane_index(trainer->lanes)];
  reset(*trainer);
  Outcome outcome;
  const size_t bytes = sizeof(float) * size_t(p.artifact.value_count);
  for (uint32_t step = 0; step < kSteps; ++step) {
    const uint32_t count = step == 1 ? (options.batch + 1) / 2 : options.batch;
    const tkt_status status = tkt_train_step(trainer, g_samples, &g_targets, count, &outcome.losses[step], &error);
    require(status == TKT_OK, error.text, recomputation, step);
    double sum;
    uint32_t correct;
    if (step == 0) tkt_evaluate(trainer, g_samples, &g_targets, kMaxSamples, &sum, &correct, &error);
  }
  outcome.values = static_cast<float *>(malloc(bytes));
  memcpy(outcome.values, tkt_values(trainer), bytes);
  free(memory);
  ++g_trainings;
  return outcome;
}

bool equal(const Outcome &a, const Outcome &b, uint32_t values) {
  return memcmp(a.losses, b.losses, sizeof a.losses) == 0 && memcmp(a.values, b.values, sizeof(float) * values) == 0;
}

// Without gradients in memory, and with momentum in parts.
void check_trainings(const Artifact &a) {
  static const uint32_t settings[][3] = {{1, 0, 0}, {5, 0, 0}, {20, 1, 7}};
  for (const uint32_t *s : settings) {
    tkt_options options = {};
    options.struct_bytes = sizeof options;
    tkt_default_options(g_bytes, g_size, &options, nullptr);
    options.optimizer = TKT_SGD;
    options.nesterov = 0;
    options.learning_rate = 0.01f;
    options.clip_norm = 0;
    options.batch = s[0];
    options.momentum = s[1] ? 0.9f : 0.0f;
    options.micro_batch = s[2];
    const Outcome whole = train(options, 0, false, TKT_KERNELS_SCALAR);
    for (uint32_t r = 1; r < kRecomputations; r += 3) {
      const Outcome twice = train(options, r, false, r % 2 ? TKT_KERNELS_SCALAR : TKT_KERNELS_AUTO);
      require(equal(whole, twice, a.value_count), "trains to other bits", r, options.batch);
      free(twice.values);
    }
    for (uint32_t r = 0; r < kRecomputations; r += 5) {
      const Outcome scalar = train(options, r, true, TKT_KERNELS_SCALAR),
                    fast = train(options, r, true, TKT_KERNELS_AUTO);
      require(equal(scalar, fast, a.value_count), "with half floats kernels differ", r, options.batch);
      require(memcmp(scalar.losses, whole.losses, sizeof(float)) == 0, "half floats change the loss", r, options.batch);
      free(scalar.values);
      free(fast.values);
    }
    free(whole.values);
  }
}

}  // namespace

int main(int count, char **files) {
  static Artifact artifact;
  for (int i = 1; i < count; ++i) {
    tkt_error error = {};
    read_file(files[i]);
    require(read_artifact(g_bytes, g_size, &artifact, &error) == TKT_OK, error.text, 0, 0);
    if (check_plans(artifact) > kMaxTrainedUnits || artifact.graph.elements(0) > kMaxInputs ||
        artifact.graph.output_count() > kMaxInputs)
      continue;
    make_data(artifact);
    check_trainings(artifact);
  }
  printf("plan_test: %u plans, %u nodes recomputed, %u buffers halved, %u trainings\n", unsigned(g_plans),
         unsigned(g_recomputed), unsigned(g_halved), unsigned(g_trainings));
  return g_recomputed > 0 && g_halved > 0 ? 0 : 1;
}
