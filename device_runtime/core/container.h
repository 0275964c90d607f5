// The file around artifacts and checkpoints: header, section table, checksums (FORMAT.md, "File"). Reading checks every
// byte and never leaves the buffer, whatever it holds; writing gives equal bytes for equal sections.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ticket_runtime.h"

namespace tkt {

constexpr uint32_t kMaxSections = 32;
constexpr uint64_t kMaxFileBytes = 0x7FFFFFFF;
constexpr uint32_t kFirstOptionalKind = 0x8000;  // kinds from here on may be skipped
constexpr uint32_t kTicketHashBytes = 32;

// What differs between the two files.
struct FileType {
  const char *noun;
  uint8_t magic[8];
  uint32_t last_kind;
  tkt_status corrupt, incompatible;
};

extern const FileType kArtifactFile, kCheckpointFile;

struct Section {
  uint32_t kind, bytes;
  const uint8_t *data;  // nullptr: there is no such section
};

// A checked file.
struct Container {
  const uint8_t *bytes;
  uint32_t section_count;
  uint16_t version_minor;

  const uint8_t *ticket_hash() const { return bytes + 24; }
  Section section(uint32_t index) const;
  Section find(uint32_t kind) const;
};

tkt_status read_container(const FileType &type, const void *bytes, uint64_t size, Container *container,
                          tkt_error *error);

uint64_t container_bytes(const Section *sections, uint32_t count);

// Needs container_bytes() at `out`; the sections' kinds rise.
void write_container(const FileType &type, uint16_t version_minor, const uint8_t *ticket_hash, const Section *sections,
                     uint32_t count, uint8_t *out);

}  // namespace tkt
