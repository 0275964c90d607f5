// Initial values drawn from a seed: each a pure function of (seed, stream, index), in any order, with the same bits on every
// target. FORMAT.md, section Drawn values, has the arithmetic.
#pragma once

#include <stdint.h>

namespace tkt {

enum : uint32_t { kConstant = 0, kUniform = 1, kNormal = 2 };

// `a` itself with b = 0; evenly from a to b; or normal with mean a and standard deviation b.
struct Distribution {
  uint32_t kind;
  float a, b;
};

// Whether it is one of these, in numbers of which no draw overflows.
bool is_distribution(const Distribution &from);

// Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011): turns the counter in `words` into four random words.
static inline void philox(uint64_t key, uint32_t words[4]) {
  uint32_t low = uint32_t(key), high = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t(0xD2511F53u) * words[0], second = uint64_t(0xCD9E8D57u) * words[2];
    words[0] = uint32_t(second >> 32) ^ words[1] ^ low;
    words[1] = uint32_t(second);
    words[2] = uint32_t(first >> 32) ^ words[3] ^ high;
    words[3] = uint32_t(first);
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
}

// Element `index` of stream `stream`.
float draw(const Distribution &from, uint64_t seed, uint32_t stream, uint32_t index);

}  // namespace tkt
