// Correlations with sparse kernels: forward, input gradient (the same with the transposed pattern) and weight gradient of
// convolutions. One chain an output element, in the order of the entries; a tile of neighbouring outputs in registers.

// An entry, looked up.
struct Tap {
  float weight;
  int32_t offset;  // in vectors
};

constexpr uint32_t kTapsAtOnce = 128;  // decoded on the stack; a chain goes on from memory, which changes no bit

struct Taps {
  const Correlation &c;
  uint32_t row_begin(uint32_t row) const {
    if (c.transposed) return c.transposed->row_ptr[c.first_row + row];
    return c.weight->row_ptr ? c.weight->row_ptr[c.first_row + row] : (c.first_row + row) * c.weight->cols;
  }
  uint32_t row_end(uint32_t row) const { return row_begin(row + 1); }
  uint32_t base(uint32_t row) const { return (c.first_row + row) / c.rows_per_base * c.base_step; }

  // The first entry of a row of `weight` with this code or a larger one.
  uint32_t find(uint32_t row, uint32_t code) const {
    uint32_t low = row_begin(row), high = row_end(row);
    const Matrix &m = *c.weight;
    if (m.dense()) return low + (code < m.cols ? code : m.cols);
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      const uint32_t there = m.columns16 ? m.columns16[middle] : m.columns32[middle];
      if (there < code)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  template <typename Index>
  static void decode(const Correlation &c, const Index *from, const Index *codes, uint32_t count, Tap *taps) {
    for (uint32_t k = 0; k < count; ++k) taps[k] = {c.values[from[k]], c.offsets[codes[k]]};
  }
  template <typename Codes>
  static void decode_in_order(const Correlation &c, const float *values, Codes codes, uint32_t count, Tap *taps) {
    for (uint32_t k = 0; k < count; ++k) taps[k] = {values[k], c.offsets[codes[k]]};
  }

  void read(uint32_t row, uint32_t k, uint32_t count, Tap *taps) const {
    if (c.transposed) {
      const Transposed &t = *c.transposed;
      if (t.codes16) return decode(c, t.from16 + k, t.codes16 + k, count, taps);
      return decode(c, t.from32 + k, t.codes32 + k, count, taps);
    }
    const Matrix &m = *c.weight;
    if (m.columns16) return decode_in_order(c, c.values + k, m.columns16 + k, count, taps);
    if (m.columns32) return decode_in_order(c, c.values + k, m.columns32 + k, count, taps);
    decode_in_order(c, c.values + k, Consecutive{k - row_begin(row)}, count, taps);
  }
};

// kTile outputs side by side. `continued`: y holds the chain so far.
template <typename V, uint32_t kTile>
TKT_INLINE void correlate_tile(const Tap *taps, uint32_t count, float start, bool continued, const float *x,
                               size_t x_step, float *y, size_t y_step) {
  V a[kTile];
  TKT_UNROLL
  for (uint32_t t = 0; t < kTile; ++t) a[t] = continued ? V::load(y + t * y_step) : V::broadcast(start);
  for (uint32_t k = 0; k < count; ++k) {
    const V weight = V::broadcast(taps[k].weight);
    const float *at = x + ptrdiff_t(taps[k].offset) * ptrdiff_t(V::kLanes);
    TKT_UNROLL
    for (uint32_t t = 0; t < kTile; ++t) a[t] = fused(weight, V::load(at + t * x_step), a[t]);
  }
  TKT_UNROLL
  for (uint32_t t = 0; t < kTile; ++t) a[t].store(y + t * y_step);
}

template <typename V>
inline void correlate_line(const Tap *taps, uint32_t count, float start, bool continued, const float *x, size_t x_step,
                           float *y, size_t y_step, uint32_t width) {
  uint32_t i = 0;
  if constexpr (kTilesAtOnce > 8) {
    for (; i + kTilesAtOnce <= width; i += kTilesAtOnce) {
      correlate_tile<V, kTilesAtOnce>(taps, count, start, continued, x + i * x_step, x_step, y + i * y_step, y_step);
    }
  }
  constexpr uint32_t kHalf = kTilesAtOnce > 8 ? 8 : kTilesAtOnce;
  for (; i + kHalf <= width; i += kHalf) {
    correlate_tile<V, kHalf>(taps, count, start, continued, x + i * x_step, x_step, y + i * y_step, y_step);
  }
  if constexpr (kHalf > 4) {
    for (; i + 4 <= width; i += 4) {
      correlate_tile<V, 4>(taps, count, start, continued, x + i * x_step, x_step, y + i * y_step, y_step);
    }
  }
  for (; i < width; ++i) {
    correlate_tile<V, 1>(taps, count, start, continued, x + i * x_step, x_step, y + i * y_step, y_step);
  }
}

// One row of outputs over `lines` lines of one group.
template <typename V>
inline void correlate_row(const Correlation &c, const Taps &entries, uint32_t row, const float *x, float *y,
                          uint32_t lines) {
  constexpr size_t kLanes = V::kLanes;
  const uint32_t begin = entries.row_begin(row), end = entries.row_end(row);
  const float start = c.bias ? c.bias[row] : 0.0f;
  Tap taps[kTapsAtOnce];
  uint32_t k = begin;
  do {  // once for a row without entries, which still is its bias
    const uint32_t count = end - k < kTapsAtOnce ? end - k : kTapsAtOnce;
    const bool continued = c.accumulate || k > begin;
    entries.read(row, k, count, taps);
    for (uint32_t j = 0; j < lines; ++j) {
      correlate_line<V>(taps, count, start, continued, x + j * c.in_row * kLanes, c.in_column * kLanes,
                        y + j * c.out_row * kLanes, c.out_column * kLanes, c.width);
    }
    k += count;
  } while (k < end);
}

template <typename V>
void correlate(const Correlation &c, const Tensor &x, const Tensor &y, uint32_t groups) {
  constexpr size_t kLanes = V::kLanes;
  const Taps entries = {c};
  for (uint32_t g = 0; g < groups; ++g) {
    for (uint32_t j = 0, lines; j < c.height; j += lines) {
      lines = c.height - j < c.strip ? c.height - j : c.strip;
      const float *in =
          x.data + g * x.group_stride + (c.in_origin + ptrdiff_t(j) * ptrdiff_t(c.in_row)) * ptrdiff_t(kLanes);
      float *out = y.data + g * y.group_stride + (c.out_origin + size_t(j) * c.out_row) * kLanes;
      for (uint32_t row = 0; row < c.rows; ++row, out += c.out_plane * kLanes) {
        correlate_row<V>(c, entries, row, in + entries.base(row) * kLanes, out, lines);
      }
    }
  }
}

// kCount entries of one row: chains over groups and positions, then the sums over lanes.
template <typename V, uint32_t kCount>
inline void tap_gradients(const Correlation &c, const int32_t *offsets, const float *x, const Tensor &dy,
                          const float *first_dy, size_t x_group, uint32_t groups, float *out) {
  constexpr size_t kLanes = V::kLanes;
  V a[kCount];
  TKT_UNROLL
  for (uint32_t t = 0; t < kCount; ++t) a[t] = V::zero();
  for (uint32_t g = 0; g < groups; ++g) {
    for (uint32_t j = 0; j < c.height; ++j) {
      const float *gradient = first_dy + g * dy.group_stride + j * c.out_row * kLanes;
      const float *line = x + g * x_group + j * c.in_row * kLanes;
      for (uint32_t i = 0; i < c.width; ++i, gradient += kLanes, line += c.in_column * kLanes) {
        const V d = V::load(gradient);
        TKT_UNROLL
        for (uint32_t t = 0; t < kCount; ++t) {
          a[t] = fused(d, V::load(line + ptrdiff_t(offsets[t]) * ptrdiff_t(kLanes)), a[t]);
        }
      }
    }
  }
  sum_lanes<kCount>(a, out);
}

// Entries [k, end) of one row.
template <typename V>
inline void row_tap_gradients(const Correlation &c, const Taps &entries, uint32_t row, uint32_t k, uint32_t end,
                              const Tensor &x, const Tensor &dy, uint32_t groups, float *out) {
  constexpr uint32_t kMany = V::kLanes == kMaxLanes ? kNonzerosAtOnce : 4;
  const float *in = x.data + (c.in_origin + ptrdiff_t(entries.base(row))) * ptrdiff_t(V::kLanes);
  const float *gradient = dy.data + (size_t(row) * c.out_plane + c.out_origin) * V::kLanes;
  for (uint32_t left; k < end; k += left, out += left) {
    left = end - k < kMany ? end - k : kMany;
    Tap taps[kMany];
    int32_t offsets[kMany];
    float sums[kMany];
    entries.read(row, k, left, taps);
    for (uint32_t t = 0; t < kMany; ++t) offsets[t] = taps[t < left ? t : 0].offset;
    if (kMany > 8 && left <= 8 && left > 4) {
      tap_gradients<V, 8>(c, offsets, in, dy, gradient, x.group_stride, groups, sums);
    } else if (kMany > 4 && left <= 4) {
      tap_gradients<V, 4>(c, offsets, in, dy, gradient, x.group_stride, groups, sums);
    } else {
      tap_gradients<V, kMany>(c, offsets, in, dy, gradient, x.group_stride, groups, sums);
    }
    memcpy(out, sums, left * sizeof(float));
  }
}

template <typename V>
void correlation_gradient(const Correlation &c, const Tensor &x, const Tensor &dy, uint32_t groups, float *out) {
  const Taps entries = {c};
  const uint32_t start = entries.row_begin(0);
  for (uint32_t block = 0; block < c.weight->cols; block += c.block) {
    for (uint32_t row = 0; row < c.rows; ++row) {
      const uint32_t begin = entries.find(row, block), end = entries.find(row, block + c.block);
      row_tap_gradients<V>(c, entries, row, begin, end, x, dy, groups, out + (begin - start));
    }
  }
}

// dx += the transposed correlation, by its own entries: one chain an element. Needs no transposed pattern. What falls on
// the zeros around dx stays there.
template <typename V>
void scatter_correlation(const Correlation &c, const Tensor &dy, const Tensor &dx, uint32_t groups) {
  constexpr size_t kLanes = V::kLanes;
  const Taps entries = {c};
  Tap tap[1];
  for (uint32_t g = 0; g < groups; ++g) {
    for (uint32_t row = 0; row < c.rows; ++row) {
      const float *gradient = dy.data + g * dy.group_stride + (c.out_origin + size_t(row) * c.out_plane) * kLanes;
      float *into = dx.data + g * dx.group_stride + (c.in_origin + ptrdiff_t(entries.base(row))) * ptrdiff_t(kLanes);
      for (uint32_t k = entries.row_begin(row), end = entries.row_end(row); k < end; ++k) {
        entries.read(row, k, 1, tap);
        const V weight = V::broadcast(tap[0].weight);
        for (uint32_t j = 0; j < c.height; ++j) {
          const float *from = gradient + j * c.out_row * kLanes;
          float *to = into + (tap[0].offset + ptrdiff_t(j) * ptrdiff_t(c.in_row)) * ptrdiff_t(kLanes);
          for (uint32_t i = 0; i < c.width; ++i, from += c.out_column * kLanes, to += c.in_column * kLanes) {
            fused(weight, V::load(from), V::load(to)).store(to);
          }
        }
      }
    }
  }
}
