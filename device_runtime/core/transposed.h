// The transposed pattern of a sparse matrix, built once when a trainer is opened. It holds no values: the weights are read
// through the index, which is faster than copying them anew in every step as long as the values fit the second cache.
#pragma once

#include "core/arena.h"
#include "core/kernels.h"

namespace tkt {

// Where entries go: transposed row and code of the entry at (row, column).
struct Transposition {
  uint32_t rows, codes;  // of the transposed matrix; codes are below `codes`
  uint32_t columns;      // those before it are transposed alone
  void (*map)(const void *context, uint32_t row, uint32_t column, uint32_t *transposed_row, uint32_t *code);
  const void *context;
};

// nullptr while the arena is only counting. Entries of a transposed row keep the order of the matrix.
Transposed *lay_out_transposed(const Matrix &m, const Transposition &t, Arena &arena);

}  // namespace tkt
