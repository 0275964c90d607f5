// Each rule of FORMAT.md's "File" is one check below, in the order in which a field can be trusted.
#include "core/container.h"

#include "core/bytes.h"
#include "core/crc32.h"
#include "core/error.h"

namespace tkt {
namespace {

constexpr uint32_t kHeaderBytes = 64, kEntryBytes = 16, kAlignment = 64, kCrcAt = 20;
constexpr uint16_t kVersionMajor = 1;

uint64_t table_end(uint32_t section_count) { return kHeaderBytes + uint64_t(kEntryBytes) * section_count; }

// With the bytes of the checksum itself taken as 0.
uint32_t header_crc(const uint8_t *bytes, uint64_t size) {
  const uint8_t zeros[4] = {0, 0, 0, 0};
  uint32_t crc = crc32(zeros, 4, crc32(bytes, kCrcAt));
  return crc32(bytes + kCrcAt + 4, static_cast<size_t>(size - kCrcAt - 4), crc);
}

tkt_status check_header(const FileType &type, const uint8_t *bytes, uint64_t size, tkt_error *error) {
  const tkt_status corrupt = type.corrupt;
  if (size < 8 || memcmp(bytes, type.magic, 8) != 0) {
    return fail(error, corrupt, "the ", type.noun, " of ", size, " bytes does not begin as one; give the right file");
  }
  if (size < kHeaderBytes) {
    return fail(error, corrupt, "the ", type.noun, " is cut short: ", size, " bytes, but the header alone has ",
                kHeaderBytes, "; copy it again");
  }
  uint16_t major = load_u16(bytes + 8);
  if (major != kVersionMajor) {
    return fail(error, type.incompatible, "the ", type.noun, " has format version ", unsigned(major),
                ", but this runtime reads version ", unsigned(kVersionMajor), "; update the runtime or export again");
  }
  uint32_t file_bytes = load_u32(bytes + 12);
  if (file_bytes != size || size > kMaxFileBytes) {
    return fail(error, corrupt, "the ", type.noun, " has ", size, " bytes, but its header says ", file_bytes,
                "; copy it again");
  }
  uint32_t sections = load_u32(bytes + 16);
  if (sections < 1 || sections > kMaxSections || table_end(sections) > size) {
    return fail(error, corrupt, "the ", type.noun, " has a table of ", sections,
                " sections, which cannot be right for ", size, " bytes; copy it again");
  }
  if (header_crc(bytes, table_end(sections)) != load_u32(bytes + kCrcAt) || !all_zero(bytes + 56, 8)) {
    return fail(error, corrupt, "the header of the ", type.noun, " is damaged (checksum); copy it again");
  }
  return TKT_OK;
}

tkt_status check_kind(const FileType &type, uint32_t kind, uint32_t before, tkt_error *error) {
  if (kind <= before) {
    return fail(error, type.corrupt, "section kind ", kind, " of the ", type.noun, " does not rise; export it again");
  }
  if (kind > type.last_kind && kind < kFirstOptionalKind) {
    return fail(error, type.incompatible, "section kind ", kind, " of the ", type.noun,
                " is unknown to this runtime; update the runtime or export again");
  }
  return TKT_OK;
}

tkt_status check_sections(const FileType &type, const Container &file, uint64_t size, tkt_error *error) {
  uint64_t end = table_end(file.section_count);
  uint32_t kind = 0;
  for (uint32_t i = 0; i < file.section_count; ++i) {
    const uint8_t *entry = file.bytes + table_end(i);
    if (tkt_status status = check_kind(type, load_u32(entry), kind, error)) return status;
    kind = load_u32(entry);
    uint64_t start = round_up(end, kAlignment), bytes = load_u32(entry + 8);
    if (load_u32(entry + 4) != start || start > size || bytes > size - start) {
      return fail(error, type.corrupt, "section ", kind, " of the ", type.noun, " lies at ", load_u32(entry + 4),
                  " with ", bytes, " bytes, outside its place; copy or export it again");
    }
    bool sound = all_zero(file.bytes + end, start - end) &&
                 crc32(file.bytes + start, static_cast<size_t>(bytes)) == load_u32(entry + 12);
    if (!sound) {
      return fail(error, type.corrupt, "section ", kind, " of the ", type.noun,
                  " is damaged (checksum); copy it again");
    }
    end = start + bytes;
  }
  if (end == size) return TKT_OK;
  return fail(error, type.corrupt, "the ", type.noun, " has ", size, " bytes, but its sections end at ", end,
              "; copy or export it again");
}

}  // namespace

const FileType kArtifactFile = {
    "artifact", {0x89, 0x54, 0x4B, 0x54, 0x0D, 0x0A, 0x1A, 0x0A}, 13, TKT_CORRUPT_ARTIFACT, TKT_INCOMPATIBLE_ARTIFACT};
const FileType kCheckpointFile = {
    "checkpoint", {0x89, 0x54, 0x4B, 0x43, 0x0D, 0x0A, 0x1A, 0x0A}, 4, TKT_CORRUPT_CHECKPOINT, TKT_CORRUPT_CHECKPOINT};

Section Container::section(uint32_t index) const {
  const uint8_t *entry = bytes + table_end(index);
  return {load_u32(entry), load_u32(entry + 8), bytes + load_u32(entry + 4)};
}

Section Container::find(uint32_t kind) const {
  for (uint32_t i = 0; i < section_count; ++i) {
    if (section(i).kind == kind) return section(i);
  }
  return {kind, 0, nullptr};
}

tkt_status read_container(const FileType &type, const void *bytes, uint64_t size, Container *container,
                          tkt_error *error) {
  const uint8_t *start = static_cast<const uint8_t *>(bytes);
  if (tkt_status status = check_header(type, start, size, error)) return status;
  *container = {start, load_u32(start + 16), load_u16(start + 10)};
  return check_sections(type, *container, size, error);
}

uint64_t container_bytes(const Section *sections, uint32_t count) {
  uint64_t end = table_end(count);
  for (uint32_t i = 0; i < count; ++i) end = round_up(end, kAlignment) + sections[i].bytes;
  return end;
}

void write_container(const FileType &type, uint16_t version_minor, const uint8_t *ticket_hash, const Section *sections,
                     uint32_t count, uint8_t *out) {
  uint64_t end = table_end(count);
  memset(out, 0, static_cast<size_t>(end));
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t start = round_up(end, kAlignment);
    memset(out + end, 0, static_cast<size_t>(start - end));
    if (sections[i].bytes != 0) memcpy(out + start, sections[i].data, sections[i].bytes);
    uint8_t *entry = out + table_end(i);
    store(entry, sections[i].kind);
    store(entry + 4, static_cast<uint32_t>(start));
    store(entry + 8, sections[i].bytes);
    store(entry + 12, crc32(out + start, sections[i].bytes));
    end = start + sections[i].bytes;
  }
  memcpy(out, type.magic, 8);
  store(out + 8, kVersionMajor);
  store(out + 10, version_minor);
  store(out + 12, static_cast<uint32_t>(end));
  store(out + 16, count);
  memcpy(out + 24, ticket_hash, kTicketHashBytes);
  store(out + kCrcAt, header_crc(out, table_end(count)));
}

}  // namespace tkt
