// Which buffers share memory: places and offsets of all data and gradients of one step, so that what is not needed any more
// makes room. A pure function of the graph and the number of samples.
//
// Time runs from 0, when the samples come in, over the nodes forward, the loss, and the way back. Data lives from the
// node that writes it to the last that reads it, on the way back too where a gradient needs it; a gradient lives from its
// first contribution to the node that hands it on. Large pieces are placed first, each at the lowest offset that is free
// for its whole life.
//
// Recomputation (Chen et al. 2016) cuts the nodes into segments. Data that only its own segment reads is dropped on the way
// forward, and lives a second time while the way back is in that segment, whose nodes run again before they run backward.
// The last segment runs once. Data kept as half floats lives a second time too, from the first node that needs it back.
#pragma once

#include "core/artifact.h"
#include "core/place.h"

namespace tkt {

constexpr uint32_t kUnitFloats = 16;

// How much is computed twice, from 0, nothing; each further one takes more time and mostly less memory.
constexpr uint32_t kRecomputations = 21;

// What becomes of a buffer's data, and of the node of the same number.
enum DataUse : uint8_t {
  kKept = 1,           // until the way back, if anything there reads it
  kRecomputed = 2,     // its node runs again on the way back
  kHalved = 4,         // kept as half floats
  kWritesHalf = 8,     // once it is written, the halves of its root are made
  kBeginsSegment = 16  // the node of this number
};

struct MemoryPlan {
  struct Part {
    uint32_t offset[kMaxNodes + 1];  // of roots, in units of 16 floats a group
    uint16_t root[kMaxNodes + 1];    // the buffer whose memory a buffer uses, the first of those that share it
    Halo halo[kMaxNodes + 1];        // of roots
  };
  Part data, gradient;
  uint32_t again[kMaxNodes + 1];  // offsets of roots: data that lives a second time
  uint32_t half[kMaxNodes + 1];   // likewise: its half floats
  uint8_t use[kMaxNodes + 1];     // DataUse
  bool needs_gradient[kMaxNodes + 1];
  uint32_t units;          // of everything
  uint32_t lanes, groups;  // of the largest part of a batch
  bool scatter;            // one lane: input gradients are scattered, which needs no transposed pattern

  bool lives_again(uint32_t buffer) const { return (use[buffer] & (kRecomputed | kHalved)) != 0; }
  Place place(const Graph &graph, uint32_t buffer) const { return place_in(data, graph, buffer); }
  Place gradient_place(const Graph &graph, uint32_t buffer) const { return place_in(gradient, graph, buffer); }

 private:
  static Place place_in(const Part &part, const Graph &graph, uint32_t buffer) {
    return place_of(graph.shape(buffer), part.halo[part.root[buffer]]);
  }
};

// False if a buffer with its zeros, or all of them together, are larger than can be counted. `samples` decides on lanes
// and groups alone: plans of as many lanes have the same units.
bool make_memory_plan(const Artifact &artifact, uint32_t samples, uint32_t recomputation, bool halves,
                      MemoryPlan *plan);

}  // namespace tkt
