// The bytes of a fuzz target read as a program: choices, counts near the usual one, numbers that tell.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace fuzz {

// Past its end everything is 0.
class Input {
 public:
  Input(const uint8_t *data, size_t size) : at_(data), left_(size) {}

  bool at_end() const { return left_ == 0; }

  uint8_t byte() {
    if (left_ == 0) return 0;
    --left_;
    return *at_++;
  }

  uint32_t word() {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | byte();
    return value;
  }

  uint32_t below(uint32_t limit) { return byte() % limit; }
  bool rarely() { return byte() >= 240; }

  // Small, around `usual`, or any at all.
  uint32_t count(uint32_t usual) {
    const uint8_t kind = byte();
    if (kind < 100) return usual;
    if (kind < 150) return usual + kind % 5 - 2;
    if (kind < 220) return kind % 8;
    return word();
  }

  float number() {
    static const uint32_t telling[] = {0,          0x80000000, 0x3F800000, 0xBF800000, 0x7F800000,
                                       0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0x00000001, 0x3F7FFFFF,
                                       0x3DCCCCCD, 0x00800000, 0x3F666666, 0x7149F2CA};
    const uint8_t kind = byte();
    const uint32_t bits = kind < 200 ? telling[kind % (sizeof telling / sizeof *telling)] : word();
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }

 private:
  const uint8_t *at_;
  size_t left_;
};

}  // namespace fuzz
