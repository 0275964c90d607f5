// The CRC-32 of zlib, PNG and Ethernet (polynomial 0xEDB88320, reflected), which every file of FORMAT.md uses.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace tkt {

// Of `bytes` following a part whose CRC is `before` (0 for the first part).
uint32_t crc32(const void *data, size_t bytes, uint32_t before = 0);

}  // namespace tkt
