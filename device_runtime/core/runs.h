// Walks several buffers of one shape side by side by stretches without gaps: everything at once where none has zeros around
// its images, else line by line.
#pragma once

#include "core/threads.h"
#include "core/trainer.h"

namespace tkt {

// Of the data and gradients of one shape: calls body(pointers, floats), maybe in several threads, where pointers[i] is in
// tensors[i].
template <uint32_t kTensors, typename Body>
void for_each_run(const tkt_trainer &trainer, const Tensor (&tensors)[kTensors], const Body &body) {
  const Place &shape = tensors[0].place;
  const uint32_t lanes = trainer.lanes, groups = trainer.groups;
  const uint64_t cost = uint64_t(groups) * shape.elements();
  bool flat = true;
  for (const Tensor &t : tensors) flat &= t.place.flat();
  if (flat) {
    const uint32_t vectors = groups * shape.elements();
    return range_in_parts(trainer, vectors, 16, cost, [&](uint32_t first, uint32_t last) {
      float *at[kTensors];
      for (uint32_t i = 0; i < kTensors; ++i) at[i] = tensors[i].data + size_t(first) * lanes;
      body(at, size_t(last - first) * lanes);
    });
  }
  range_in_parts(trainer, groups * shape.channels, 1, cost, [&](uint32_t first, uint32_t last) {
    for (uint32_t n = first; n < last; ++n) {
      const uint32_t g = n / shape.channels, c = n % shape.channels;
      for (uint32_t j = 0; j < shape.rows; ++j) {
        float *at[kTensors];
        for (uint32_t i = 0; i < kTensors; ++i) {
          at[i] = tensors[i].data + g * tensors[i].group_stride + size_t(tensors[i].place.at(c, j, 0)) * lanes;
        }
        body(at, size_t(shape.length) * lanes);
      }
    }
  });
}

// The same for one channel of them.
template <uint32_t kTensors, typename Body>
void for_each_run_of_channel(uint32_t lanes, uint32_t groups, uint32_t channel, const Tensor (&tensors)[kTensors],
                             Body body) {
  const Place &shape = tensors[0].place;
  float *at[kTensors];
  for (uint32_t g = 0; g < groups; ++g) {
    for (uint32_t j = 0; j < shape.rows; ++j) {
      for (uint32_t i = 0; i < kTensors; ++i) {
        at[i] = tensors[i].data + g * tensors[i].group_stride + size_t(tensors[i].place.at(channel, j, 0)) * lanes;
      }
      body(at, size_t(shape.length) * lanes);
    }
  }
}

}  // namespace tkt
