// Hands the gradients of a parameter on to where they belong: into memory, onto what is there, or straight into the values.
#pragma once

#include "core/trainer.h"

namespace tkt {

// Writes the gradients of rows [first, last) of a parameter to `out`; both are multiples of its block.
using GradientFunction = void (*)(const void *context, uint32_t first, uint32_t last, float *out);

void use_gradients(tkt_trainer &trainer, uint32_t param, uint32_t first, uint32_t last, GradientFunction compute,
                   const void *context);

// The same for anything that is called like that; of rows [first, last), or of all.
template <typename Compute>
void use_gradients(tkt_trainer &trainer, uint32_t param, uint32_t first, uint32_t last, const Compute &compute) {
  use_gradients(
      trainer, param, first, last,
      [](const void *context, uint32_t begin, uint32_t end, float *out) {
        (*static_cast<const Compute *>(context))(begin, end, out);
      },
      &compute);
}

template <typename Compute>
void use_gradients(tkt_trainer &trainer, uint32_t param, const Compute &compute) {
  use_gradients(trainer, param, 0, trainer.params[param].matrix.rows, compute);
}

}  // namespace tkt
