// Values drawn from a seed (core/draw.h): Philox against its authors' vectors, every distribution by a digest that all targets
// share, ranges, moments, and what tkt_draw refuses.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/crc32.h"
#include "core/draw.h"
#include "ticket_runtime.h"

namespace {

// Of all that `digest` draws, on every target. It changes only together with the section Drawn values of FORMAT.md.
constexpr uint32_t kDigest = 0xDD960806;
constexpr uint32_t kCount = 4096;

float g_values[kCount];

int failed(const char *what, double found) {
  fprintf(stderr, "draw_test: %s: %g\n", what, found);
  return 1;
}

// The known answers of Random123, the library of the paper's authors (kat_vectors, philox4x32 10).
int check_philox() {
  const struct {
    uint64_t key;
    uint32_t counter[4], words[4];
  } known[] = {
      {0, {0, 0, 0, 0}, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
      {~uint64_t(0), {~0u, ~0u, ~0u, ~0u}, {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
      {0x299F31D0A4093822,
       {0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344},
       {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}},
  };
  for (const auto &k : known) {
    uint32_t words[4];
    memcpy(words, k.counter, sizeof words);
    tkt::philox(k.key, words);
    if (memcmp(words, k.words, sizeof words) != 0) return failed("philox, first word", words[0]);
  }
  return 0;
}

void draw(uint32_t distribution, float a, float b, uint64_t seed, uint32_t stream, uint32_t first, uint32_t count) {
  if (tkt_draw(seed, stream, distribution, a, b, first, count, g_values, nullptr) != TKT_OK) failed("tkt_draw", a);
}

uint32_t digest() {
  const uint64_t seeds[] = {0, 1, 0x8000000000000001, ~uint64_t(0)};
  const uint32_t streams[] = {0, 1, 4095}, firsts[] = {0, 0xFFFFFF00};
  const tkt::Distribution from[] = {{0, 1.5f, 0},       {1, -0.05f, 0.05f}, {1, -3, -1},      {1, 0, 0},
                                    {2, 0, 0.0441942f}, {2, -2, 3},         {2, 1e30f, 1e30f}};
  uint32_t found = 0;
  for (uint64_t seed : seeds) {
    for (uint32_t stream : streams) {
      for (const tkt::Distribution &d : from) {
        for (uint32_t first : firsts) {
          draw(d.kind, d.a, d.b, seed, stream, first, 64);
          found = tkt::crc32(g_values, sizeof(float) * 64, found);
        }
      }
    }
  }
  return found;
}

// Within some 5 standard errors; every value within what FORMAT.md promises.
int check_moments() {
  for (uint32_t distribution = TKT_UNIFORM; distribution <= TKT_NORMAL; ++distribution) {
    const bool normal = distribution == TKT_NORMAL;
    draw(distribution, -1, 2, 7, 3, 0, kCount);
    double sum = 0, squares = 0;
    for (float value : g_values) {
      if (!normal && !(value >= -1 && value < 2)) return failed("a uniform value out of its range", double(value));
      if (fabs(double(value) + 1) > 2 * 6.8) return failed("a normal value out of its range", double(value));
      sum += double(value);
    }
    const double mean = sum / kCount, wanted = normal ? -1 : 0.5, deviation = normal ? 2 : 3 / sqrt(12.0);
    for (float value : g_values) squares += (double(value) - mean) * (double(value) - mean);
    const double found = sqrt(squares / kCount);
    if (fabs(mean - wanted) > 5 * deviation / sqrt(double(kCount))) return failed("mean", mean);
    if (fabs(found / deviation - 1) > 5 / sqrt(2.0 * kCount)) return failed("standard deviation", found);
  }
  return 0;
}

// A run is its elements one by one, wherever it begins.
int check_places() {
  const tkt::Distribution from = {TKT_NORMAL, 0, 1};
  draw(from.kind, from.a, from.b, 11, 5, 1000, 64);
  for (uint32_t i = 0; i < 64; ++i) {
    const float alone = tkt::draw(from, 11, 5, 1000 + i);
    if (memcmp(&alone, &g_values[i], sizeof alone) != 0) return failed("an element of a run", i);
  }
  return 0;
}

int check_refusals() {
  const float infinity = HUGE_VALF, most = 3.4e38f;
  const tkt::Distribution wrong[] = {{0, 1, 1},        {0, NAN, 0},  {0, infinity, 0}, {1, 1, 0},
                                     {1, -most, most}, {1, 0, NAN},  {1, NAN, 0},      {2, 0, -1},
                                     {2, 0, NAN},      {2, 0, most}, {2, infinity, 1}, {3, 0, 0}};
  for (const tkt::Distribution &d : wrong) {
    tkt_error error;
    if (tkt_draw(0, 0, d.kind, d.a, d.b, 0, 1, g_values, &error) != TKT_INVALID_INPUT)
      return failed("taken", double(d.a));
    if (strstr(error.text, "is none; take 0 (constant") == nullptr) return failed(error.text, double(d.a));
  }
  if (tkt_draw(0, 0, TKT_NORMAL, 0, 1, 0, 1, nullptr, nullptr) != TKT_INVALID_INPUT) return failed("NULL taken", 0);
  if (tkt_draw(0, 0, TKT_NORMAL, 0, 1, ~0u, 2, g_values, nullptr) != TKT_INVALID_INPUT) return failed("too far", 0);
  if (tkt_draw(0, 0, TKT_NORMAL, 0, 1, ~0u, 1, g_values, nullptr) != TKT_OK) return failed("the last refused", 0);
  return tkt_draw(0, 0, TKT_NORMAL, 0, 1, ~0u, 0, g_values, nullptr) == TKT_OK ? 0 : failed("count 0 refused", 0);
}

}  // namespace

int main() {
  if (check_philox() || check_moments() || check_places() || check_refusals()) return 1;
  const uint32_t found = digest();
  printf("draw_test: digest %08x\n", unsigned(found));
  if (found == kDigest) return 0;
  fprintf(stderr, "draw_test: the digest is not %08x: the arithmetic is not that of FORMAT.md any more\n",
          unsigned(kDigest));
  return 1;
}
