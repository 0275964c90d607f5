// Without memory for gradients as many rows as fit the scratch are computed and used at a time.
#include "core/gradients.h"

#include "core/optimizer.h"
#include "core/threads.h"

namespace tkt {
namespace {

// The end of the rows from `first` on whose gradients fit the scratch together; one block of them always does.
uint32_t end_of_what_fits(const Matrix &m, uint32_t first, uint32_t last, uint32_t floats) {
  uint32_t end = first + m.block;
  while (end < last && m.row_begin(end + m.block) - m.row_begin(first) <= floats) end += m.block;
  return end;
}

}  // namespace

void use_gradients_of_part(tkt_trainer &trainer, uint32_t part, uint32_t param, uint32_t first, uint32_t last,
                           GradientFunction compute, const void *context) {
  const Parameter &p = trainer.params[param];
  const Matrix &m = p.matrix;
  if (trainer.gradient_use == GradientUse::kStore)
    return compute(context, first, last, p.gradients + m.row_begin(first));
  float *scratch = trainer.scratch + size_t(part) * trainer.scratch_floats;
  for (uint32_t end; first < last; first = end) {
    end = end_of_what_fits(m, first, last, trainer.scratch_floats);
    compute(context, first, end, scratch);
    const uint32_t begin = m.row_begin(first), count = m.row_begin(end) - begin;
    if (trainer.gradient_use == GradientUse::kAdd) {
      trainer.kernels->add(p.gradients + begin, scratch, p.gradients + begin, count);
    } else {
      update_in_place(trainer, p.values + begin, scratch, count);
    }
  }
}

void use_gradients(tkt_trainer &trainer, uint32_t param, uint64_t vectors, GradientFunction compute,
                   const void *context) {
  const Matrix &m = trainer.params[param].matrix;
  in_parts(trainer, m.stored * vectors, [&](uint32_t part, uint32_t parts) {
    const uint32_t first = first_row_of_part(m, part, parts), last = first_row_of_part(m, part + 1, parts);
    if (first < last) use_gradients_of_part(trainer, part, param, first, last, compute, context);
  });
}

}  // namespace tkt
