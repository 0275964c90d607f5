// A byte a step by one table, made by the compiler. Four tables would be faster, but a kilobyte fits a microcontroller's
// cache and an app's library better than four, and a file is checked once.
#include "core/crc32.h"

namespace tkt {
namespace {

struct Table {
  uint32_t at[256];
};

constexpr Table make_table() {
  Table table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320u : 0u);
    table.at[i] = crc;
  }
  return table;
}

constexpr Table kTable = make_table();

}  // namespace

uint32_t crc32(const void *data, size_t bytes, uint32_t before) {
  const uint8_t *at = static_cast<const uint8_t *>(data);
  uint32_t crc = ~before;
  for (; bytes > 0; --bytes, ++at) crc = (crc >> 8) ^ kTable.at[(crc ^ *at) & 255];
  return ~crc;
}

}  // namespace tkt
