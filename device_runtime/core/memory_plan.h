// Which buffers share memory: places and offsets of all data and gradients of one step, so that what is not needed any more
// makes room. A pure function of the graph and the number of samples.
//
// Time runs from 0, when the samples come in, over the nodes forward, the loss, and the nodes backward. Data lives from the
// node that writes it to the last that reads it, on the way back too where a gradient needs it; a gradient lives from its
// first contribution to the node that hands it on. Large pieces are placed first, each at the lowest offset that is free
// for its whole life.
#pragma once

#include "core/artifact.h"
#include "core/place.h"

namespace tkt {

constexpr uint32_t kUnitFloats = 16;

struct MemoryPlan {
  struct Part {
    uint32_t offset[kMaxNodes + 1];  // of roots, in units of 16 floats a group
    uint16_t root[kMaxNodes + 1];    // the buffer whose memory a buffer uses, the first of those that share it
    Halo halo[kMaxNodes + 1];        // of roots
  };
  Part data, gradient;
  bool needs_gradient[kMaxNodes + 1];
  uint32_t units;          // of everything
  uint32_t lanes, groups;  // of the largest part of a batch
  bool scatter;            // one lane: input gradients are scattered, which needs no transposed pattern

  Place place(const Graph &graph, uint32_t buffer) const { return place_in(data, graph, buffer); }
  Place gradient_place(const Graph &graph, uint32_t buffer) const { return place_in(gradient, graph, buffer); }

 private:
  static Place place_in(const Part &part, const Graph &graph, uint32_t buffer) {
    return place_of(graph.shape(buffer), part.halo[part.root[buffer]]);
  }
};

// False if a buffer with its zeros, or all of them together, are larger than can be counted.
bool make_memory_plan(const Artifact &artifact, uint32_t samples, MemoryPlan *plan);

}  // namespace tkt
