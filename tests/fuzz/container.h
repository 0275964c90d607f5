// Mutates files as FORMAT.md's "File" makes them: the parts of a file change, then offsets, padding and checksums are made
// right again, so that what lies behind the checksums is reached. Knows sections as bytes; of their content it knows only
// how many values PARAMS announces.
#pragma once

#include "fuzz.h"

namespace fuzz {

struct Part {
  uint32_t kind;
  Bytes body;
};

struct File {
  Bytes head;  // the 64 bytes of the header; sizes and checksum are filled in by sealed()
  std::vector<Part> parts;

  // False if `bytes` cannot be read as a file at all. What lies outside is cut off.
  bool read(const uint8_t *bytes, size_t size);
  Bytes sealed() const;
};

// libFuzzer's contract: changes `data` of `size` bytes within `max_size` and returns the new size.
size_t mutate_file(uint8_t *data, size_t size, size_t max_size, uint32_t seed);
size_t cross_files(const File &a, const File &b, uint8_t *out, size_t max_size, uint32_t seed);

}  // namespace fuzz

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
