// Hands the gradients of a parameter on to where they belong: into memory, onto what is there, or straight into the values.
#pragma once

#include "core/trainer.h"

namespace tkt {

// Writes the gradients of rows [first, last) of a parameter to `out`; both are multiples of its block.
using GradientFunction = void (*)(const void *context, uint32_t first, uint32_t last, float *out);

// Of all rows, shared by the threads; a gradient costs about `vectors` operations.
void use_gradients(tkt_trainer &trainer, uint32_t param, uint64_t vectors, GradientFunction compute,
                   const void *context);

// Of rows [first, last), by the thread that does part `part` of something.
void use_gradients_of_part(tkt_trainer &trainer, uint32_t part, uint32_t param, uint32_t first, uint32_t last,
                           GradientFunction compute, const void *context);

// The same for anything that is called like that.
template <typename Compute>
void call_gradient_function(const void *context, uint32_t first, uint32_t last, float *out) {
  (*static_cast<const Compute *>(context))(first, last, out);
}

template <typename Compute>
void use_gradients(tkt_trainer &trainer, uint32_t param, uint64_t vectors, const Compute &compute) {
  use_gradients(trainer, param, vectors, call_gradient_function<Compute>, &compute);
}

template <typename Compute>
void use_gradients_of_part(tkt_trainer &trainer, uint32_t part, uint32_t param, uint32_t first, uint32_t last,
                           const Compute &compute) {
  use_gradients_of_part(trainer, part, param, first, last, call_gradient_function<Compute>, &compute);
}

}  // namespace tkt
