/* Writes small artifacts in C, byte by byte from export/FORMAT.md, with a checksum of its own: no code of the product.
 * One graph in two sizes: flatten, linear, relu, linear without bias, add to the relu, linear. Values are random.
 */
#ifndef ARTIFACT_WRITER_H
#define ARTIFACT_WRITER_H

#include <stdint.h>
#include <string.h>

enum { SECTION_CARD = 1, SECTION_RECIPE, SECTION_INPUT, SECTION_GRAPH, SECTION_PARAMS, SECTION_PATTERN, SECTION_INIT };
enum { PARAM_COUNT = 5, MAX_VALUES = 8192, MAX_FILE = 1 << 17 };

/* One stored value: its parameter and its place there. */
typedef struct Entry {
  uint32_t param, row, col;
} Entry;

typedef struct Ticket {
  uint32_t inputs, hidden, classes; /* inputs even */
  uint32_t density_percent;
  uint64_t random;
  Entry entries[MAX_VALUES];
  float values[MAX_VALUES];
  uint32_t value_count;
  uint32_t nnz[PARAM_COUNT];
  uint8_t *bytes; /* MAX_FILE of them, 8-byte aligned */
  size_t size;
} Ticket;

static uint32_t crc_of(const uint8_t *bytes, size_t size) {
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = 0; i < size; ++i) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1u) ? (crc >> 1) ^ 0xEDB88320u : crc >> 1;
  }
  return crc ^ 0xFFFFFFFFu;
}

static uint32_t get_u32(const uint8_t *at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void set_u32(uint8_t *at, uint32_t value) {
  for (int i = 0; i < 4; ++i) at[i] = (uint8_t)(value >> (8 * i));
}

static void put_u16(Ticket *t, uint32_t value) {
  t->bytes[t->size++] = (uint8_t)value;
  t->bytes[t->size++] = (uint8_t)(value >> 8);
}

static void put_u32(Ticket *t, uint32_t value) {
  set_u32(t->bytes + t->size, value);
  t->size += 4;
}

static void put_f32(Ticket *t, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  put_u32(t, bits);
}

static void put_zeros_to(Ticket *t, size_t multiple) {
  while (t->size % multiple != 0) t->bytes[t->size++] = 0;
}

static uint64_t next_random(Ticket *t) {
  t->random ^= t->random << 13;
  t->random ^= t->random >> 7;
  t->random ^= t->random << 17;
  return t->random;
}

static float random_value(Ticket *t) { return (float)(int32_t)(next_random(t) % 2001u - 1000u) / 1000.0f; }

/* Makes the checksums right again after a change. */
static void seal(uint8_t *bytes) {
  uint32_t count = get_u32(bytes + 16);
  for (uint32_t i = 0; i < count && i < 32; ++i) {
    uint8_t *entry = bytes + 64 + 16 * i;
    set_u32(entry + 12, crc_of(bytes + get_u32(entry + 4), get_u32(entry + 8)));
  }
  set_u32(bytes + 20, 0);
  set_u32(bytes + 20, crc_of(bytes, 64 + 16 * (size_t)count));
}

static void begin_section(Ticket *t, uint32_t kind) {
  put_zeros_to(t, 64);
  set_u32(t->bytes + 64 + 16 * (kind - 1), kind);
  set_u32(t->bytes + 64 + 16 * (kind - 1) + 4, (uint32_t)t->size);
}

static void end_section(Ticket *t, uint32_t kind) {
  uint8_t *entry = t->bytes + 64 + 16 * (kind - 1);
  set_u32(entry + 8, (uint32_t)t->size - get_u32(entry + 4));
}

static void shape_of(const Ticket *t, uint32_t param, uint32_t *rows, uint32_t *cols) {
  const uint32_t shapes[PARAM_COUNT][2] = {
      {t->hidden, t->inputs}, {t->hidden, 1}, {t->hidden, t->hidden}, {t->classes, t->hidden}, {t->classes, 1}};
  *rows = shapes[param][0];
  *cols = shapes[param][1];
}

/* Parameter 0 has 16-bit columns, 2 has 32-bit columns, the others are dense. The second row of a sparse one is empty. */
static uint32_t encoding_of(uint32_t param) { return param == 0 ? 1 : param == 2 ? 2 : 0; }

static void choose_entries(Ticket *t) {
  t->value_count = 0;
  for (uint32_t param = 0; param < PARAM_COUNT; ++param) {
    uint32_t rows, cols, before = t->value_count;
    shape_of(t, param, &rows, &cols);
    for (uint32_t r = 0; r < rows; ++r) {
      for (uint32_t c = 0; c < cols; ++c) {
        int live = encoding_of(param) == 0 || (r != 1 && (c == r || next_random(t) % 100 < t->density_percent));
        if (!live) continue;
        Entry entry = {param, r, c};
        t->entries[t->value_count] = entry;
        t->values[t->value_count++] = random_value(t);
      }
    }
    t->nnz[param] = t->value_count - before;
  }
}

static void put_recipe(Ticket *t) {
  const float numbers[6] = {0.05f, 0.9f, 0.0f, 0.9f, 0.999f, 1e-8f};
  put_u32(t, 1);
  put_u32(t, 8);
  for (int i = 0; i < 6; ++i) put_f32(t, numbers[i]);
  put_u32(t, 3);
  for (int i = 0; i < 6; ++i) put_u32(t, 0); /* nesterov .. schedule_steps */
  put_f32(t, 1.0f);
  put_u32(t, 0);
  put_u32(t, 0);
}

static void put_shape(Ticket *t, uint32_t rank, uint32_t first, uint32_t second) {
  const uint32_t words[5] = {rank, first, second, 1, 1};
  for (int i = 0; i < 5; ++i) put_u32(t, words[i]);
}

static void put_input(Ticket *t) {
  const float mean_and_inverse_std[4] = {0.5f, -0.25f, 2.0f, 1.25f};
  put_shape(t, 2, 2, t->inputs / 2);
  put_u32(t, 2);
  for (int i = 0; i < 4; ++i) put_f32(t, mean_and_inverse_std[i]);
}

static void put_node(Ticket *t, uint32_t op, uint32_t inputs, uint32_t params, const uint32_t *words) {
  put_u16(t, op);
  put_u16(t, inputs);
  put_u16(t, params);
  put_u16(t, 0);
  for (uint32_t i = 0; i < inputs + params; ++i) put_u32(t, words[i]);
}

static void put_graph(Ticket *t) {
  const uint32_t flatten[] = {0}, first[] = {1, 0, 1}, relu[] = {2}, mix[] = {3, 2}, sum[] = {3, 4}, out[] = {5, 3, 4};
  put_u32(t, 7);
  put_u32(t, 6);
  put_u32(t, 1);
  put_u32(t, 0);
  put_shape(t, 2, 2, t->inputs / 2);
  put_shape(t, 1, t->inputs, 1);
  for (int i = 0; i < 4; ++i) put_shape(t, 1, t->hidden, 1);
  put_shape(t, 1, t->classes, 1);
  put_node(t, 3, 1, 0, flatten);
  put_node(t, 1, 1, 2, first);
  put_node(t, 2, 1, 0, relu);
  put_node(t, 1, 1, 1, mix);
  put_node(t, 4, 2, 0, sum);
  put_node(t, 1, 1, 2, out);
}

static void put_params(Ticket *t) {
  uint32_t end = 0;
  put_u32(t, PARAM_COUNT);
  put_u32(t, 0);
  for (uint32_t param = 0; param < PARAM_COUNT; ++param) {
    uint32_t rows, cols, encoding = encoding_of(param), row_ptr = (end + 3) / 4 * 4;
    uint32_t col_idx = row_ptr + 4, width = encoding == 1 ? 2 : 4;
    shape_of(t, param, &rows, &cols);
    col_idx += 4 * rows;
    if (encoding != 0) end = col_idx + width * t->nnz[param];
    const uint32_t words[6] = {encoding, rows, cols, t->nnz[param], encoding ? row_ptr : 0, encoding ? col_idx : 0};
    for (int i = 0; i < 6; ++i) put_u32(t, words[i]);
  }
}

static void put_pattern(Ticket *t) {
  for (uint32_t param = 0; param < PARAM_COUNT; ++param) {
    uint32_t rows, cols, encoding = encoding_of(param), k = 0;
    if (encoding == 0) continue;
    shape_of(t, param, &rows, &cols);
    put_zeros_to(t, 4);
    for (uint32_t r = 0; r <= rows; ++r) {
      uint32_t before = 0;
      for (k = 0; k < t->value_count; ++k) before += t->entries[k].param == param && t->entries[k].row < r;
      put_u32(t, before);
    }
    for (k = 0; k < t->value_count; ++k) {
      if (t->entries[k].param != param) continue;
      if (encoding == 1) put_u16(t, t->entries[k].col);
      if (encoding == 2) put_u32(t, t->entries[k].col);
    }
  }
}

/* `bytes`: MAX_FILE bytes for the file. */
static void write_artifact(Ticket *t, uint8_t *bytes, uint32_t inputs, uint32_t hidden, uint32_t classes,
                           uint32_t density_percent) {
  static const uint8_t magic[8] = {0x89, 0x54, 0x4B, 0x54, 0x0D, 0x0A, 0x1A, 0x0A};
  static const char card[] = "{\"task\":\"test\"}";
  void (*const bodies[])(Ticket *) = {put_recipe, put_input, put_graph, put_params, put_pattern};
  memset(t, 0, sizeof *t);
  memset(bytes, 0, MAX_FILE);
  t->inputs = inputs;
  t->hidden = hidden;
  t->classes = classes;
  t->density_percent = density_percent;
  t->random = 88172645463325252u;
  t->bytes = bytes;
  choose_entries(t);
  memcpy(bytes, magic, 8);
  bytes[8] = 1;
  set_u32(bytes + 16, 7);
  for (uint32_t i = 0; i < 32; ++i) bytes[24 + i] = (uint8_t)(i * 7 + 1);
  t->size = 64 + 16 * 7;
  begin_section(t, SECTION_CARD);
  memcpy(bytes + t->size, card, sizeof card - 1);
  t->size += sizeof card - 1;
  end_section(t, SECTION_CARD);
  for (uint32_t kind = SECTION_RECIPE; kind <= SECTION_PATTERN; ++kind) {
    begin_section(t, kind);
    bodies[kind - SECTION_RECIPE](t);
    end_section(t, kind);
  }
  begin_section(t, SECTION_INIT);
  for (uint32_t k = 0; k < t->value_count; ++k) put_f32(t, t->values[k]);
  end_section(t, SECTION_INIT);
  set_u32(bytes + 12, (uint32_t)t->size);
  seal(bytes);
}

#endif /* ARTIFACT_WRITER_H */
