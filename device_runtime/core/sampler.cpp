// splitmix64 (Steele, Lea, Flood 2014) makes the round keys and is the round function.
#include "core/sampler.h"

namespace tkt {
namespace {

uint64_t splitmix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

uint32_t next_batch(Progress &progress, uint32_t batch, uint32_t sample_count, uint32_t *indices) {
  if (progress.position >= sample_count) {
    progress.position = 0;
    ++progress.epoch;
  }
  const Permutation order(progress.seed, progress.epoch, sample_count);
  const uint32_t left = sample_count - progress.position, count = left < batch ? left : batch;
  for (uint32_t i = 0; i < count; ++i) indices[i] = order.at(progress.position + i);
  progress.position += count;
  if (progress.position == sample_count) {
    progress.position = 0;
    ++progress.epoch;
  }
  return count;
}

Permutation::Permutation(uint64_t seed, uint64_t epoch, uint32_t sample_count)
    : sample_count_(sample_count), half_bits_(1) {
  while (half_bits_ < 16 && (uint64_t(1) << (2 * half_bits_)) < sample_count) ++half_bits_;
  uint64_t state = splitmix64(splitmix64(seed) ^ epoch);
  for (uint64_t &key : keys_) key = state = splitmix64(state);
}

uint32_t Permutation::feistel(uint32_t number) const {
  const uint32_t mask = (uint32_t(1) << half_bits_) - 1;
  uint32_t left = number >> half_bits_, right = number & mask;
  for (uint64_t key : keys_) {
    uint32_t mixed = left ^ (static_cast<uint32_t>(splitmix64(key ^ right)) & mask);
    left = right;
    right = mixed;
  }
  return (left << half_bits_) | right;
}

uint32_t Permutation::at(uint32_t position) const {
  uint32_t number = feistel(position);
  while (number >= sample_count_) number = feistel(number);
  return number;
}

}  // namespace tkt
