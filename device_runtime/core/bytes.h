// Fields of a little-endian file at any address. Files are read in place, so a big-endian machine is refused at build.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the files of FORMAT.md are read in place: only little-endian machines are supported"
#endif

namespace tkt {

template <typename T>
inline T load(const uint8_t *from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

inline uint32_t load_u32(const uint8_t *from) { return load<uint32_t>(from); }
inline uint16_t load_u16(const uint8_t *from) { return load<uint16_t>(from); }

template <typename T>
inline void store(uint8_t *to, T value) {
  memcpy(to, &value, sizeof value);
}

inline bool all_zero(const uint8_t *bytes, uint64_t count) {
  uint8_t any = 0;
  for (uint64_t i = 0; i < count; ++i) any = static_cast<uint8_t>(any | bytes[i]);
  return any == 0;
}

// An f32 is finite unless its exponent is all ones; of any alignment.
inline bool all_finite(const uint8_t *floats, uint64_t count) {
  bool finite = true;
  for (uint64_t i = 0; i < count; ++i) finite &= (load_u32(floats + 4 * i) & 0x7F800000u) != 0x7F800000u;
  return finite;
}

inline uint64_t round_up(uint64_t value, uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace tkt
