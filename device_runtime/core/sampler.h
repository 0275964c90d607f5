// The order of samples: each epoch a fresh permutation of [0, N) that is computed, not stored.
#pragma once

#include <stdint.h>

#include "core/trainer.h"

namespace tkt {

// Writes the indices of the next batch and moves on; returns how many, at most `batch`. Where fewer samples are left
// than were already drawn in this epoch, the next epoch begins.
uint32_t next_batch(Progress &progress, uint32_t batch, uint32_t sample_count, uint32_t *indices);

// A permutation of [0, sample_count), a pure function of (seed, epoch): a four-round Feistel network over the smallest
// domain of 2^(2 half_bits) >= sample_count numbers; numbers outside [0, sample_count) are permuted again until inside.
class Permutation {
 public:
  Permutation(uint64_t seed, uint64_t epoch, uint32_t sample_count);
  uint32_t at(uint32_t position) const;

 private:
  static constexpr int kRounds = 4;
  uint32_t feistel(uint32_t number) const;

  uint32_t sample_count_, half_bits_;
  uint64_t keys_[kRounds];
};

}  // namespace tkt
