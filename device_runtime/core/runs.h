// Walks several buffers of one shape side by side by stretches without gaps: everything at once where none has zeros around
// its images, else line by line.
#pragma once

#include "core/trainer.h"

namespace tkt {

// Of the data and gradients of `elements` of one shape: calls body(pointers, floats) where pointers[i] is in tensors[i].
template <uint32_t kTensors, typename Body>
void for_each_run(uint32_t lanes, uint32_t groups, const Tensor (&tensors)[kTensors], Body body) {
  const Place &shape = tensors[0].place;
  bool flat = true;
  for (const Tensor &t : tensors) flat &= t.place.flat();
  float *at[kTensors];
  if (flat) {
    for (uint32_t i = 0; i < kTensors; ++i) at[i] = tensors[i].data;
    return body(at, size_t(groups) * shape.elements() * lanes);
  }
  for (uint32_t g = 0; g < groups; ++g) {
    for (uint32_t c = 0; c < shape.channels; ++c) {
      for (uint32_t j = 0; j < shape.rows; ++j) {
        for (uint32_t i = 0; i < kTensors; ++i) {
          at[i] = tensors[i].data + g * tensors[i].group_stride + size_t(tensors[i].place.at(c, j, 0)) * lanes;
        }
        body(at, size_t(shape.length) * lanes);
      }
    }
  }
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
