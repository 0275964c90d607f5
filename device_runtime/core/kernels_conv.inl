// Correlations with sparse kernels: forward, input gradient (the same with the transposed pattern) and weight gradient of
// convolutions. One chain an output element, in the order of the entries; a tile of neighbouring outputs in registers, and
// of four rows if they share their entries.

// An entry, looked up, of kRows rows.
template <uint32_t kRows>
struct Tap {
  float weight[kRows];
  int32_t offset;  // in vectors
};

constexpr uint32_t kTapsAtOnce = 64;  // decoded on the stack; a chain goes on from memory, which changes no bit

// The rows of a correlation, counted from first_row, and their entries, counted from 0.
struct Taps {
  const Correlation &c;

  uint32_t base(uint32_t row) const { return (c.first_row + row) / c.rows_per_base * c.base_step; }
  uint32_t entries(uint32_t row) const {
    if (c.weight) return c.weight->entries(c.first_row + row);
    const uint32_t *at = c.transposed->row_ptr + leader(row);
    return c.transposed->block * (at[1] - at[0]);
  }

  // How many rows from `row` on share their entries.
  uint32_t together(uint32_t row) const {
    const uint32_t some = c.shared_rows - (c.first_row + row) % c.shared_rows;
    return c.rows - row < some ? c.rows - row : some;
  }

  // The first entry of a row of `weight` with this code or a larger one.
  uint32_t find(uint32_t row, uint32_t code) const {
    const Matrix &m = *c.weight;
    uint32_t low = 0, high = entries(row);
    if (m.dense()) return code < m.cols ? code : m.cols;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      if (m.column(c.first_row + row, middle) < code)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  // Entries [k, k + count) of kRows rows that share them; of blocks in a transposed pattern whole ones.
  template <uint32_t kRows>
  void read(uint32_t row, uint32_t k, uint32_t count, Tap<kRows> *taps) const {
    if (c.weight) {
      const Matrix &m = *c.weight;
      const uint32_t first = c.first_row + row, begin = m.column_begin(first) + k;
      const float *values = c.values + m.value(first, k);
      const size_t row_step = m.dense() ? m.cols : 1;
      if (m.columns16) return decode(values, row_step, m.block, m.columns16 + begin, count, taps);
      if (m.columns32) return decode(values, row_step, m.block, m.columns32 + begin, count, taps);
      return decode(values, row_step, 1, Consecutive{k}, count, taps);
    }
    const Transposed &t = *c.transposed;
    const uint32_t begin = t.row_ptr[leader(row)] + k / t.block;
    if (t.codes16) return decode_transposed(row, t.from16 + begin, t.codes16 + begin, count, taps);
    decode_transposed(row, t.from32 + begin, t.codes32 + begin, count, taps);
  }

 private:
  uint32_t leader(uint32_t row) const { return (c.first_row + row) / c.shared_rows * c.shared_rows; }

  template <uint32_t kRows, typename Codes>
  void decode(const float *values, size_t row_step, size_t step, Codes codes, uint32_t count, Tap<kRows> *taps) const {
    for (uint32_t k = 0; k < count; ++k, values += step) {
      for (uint32_t i = 0; i < kRows; ++i) taps[k].weight[i] = values[i * row_step];
      taps[k].offset = c.offsets[codes[k]];
    }
  }

  template <uint32_t kRows, typename Index>
  void decode_transposed(uint32_t row, const Index *from, const Index *codes, uint32_t count, Tap<kRows> *taps) const {
    const uint32_t block = c.transposed->block;
    const float *values = c.values + (c.first_row + row) % c.shared_rows * size_t(c.shared_step);
    for (uint32_t k = 0; k < count; k += block, ++from, ++codes) {
      for (uint32_t b = 0; b < block; ++b, ++taps) {
        for (uint32_t i = 0; i < kRows; ++i) taps->weight[i] = values[*from + b + i * c.shared_step];
        taps->offset = c.offsets[*codes + b * c.code_step];
      }
    }
  }
};

// A number as a type.
template <uint32_t kNumber>
struct Size {
  static constexpr uint32_t kSize = kNumber;
};

// kTile outputs side by side. `continued`: y holds the chain so far. A function of its own: where tiles of several sizes are
// inlined into one, GCC 12 puts their accumulators into memory, which made a dense convolution take half as long again.
template <typename V, uint32_t kRows, uint32_t kTile>
__attribute__((noinline)) void correlate_tile(const Tap<kRows> *taps, uint32_t count, const float *start,
                                              bool continued, const float *x, size_t x_step, float *y, size_t row_step,
                                              size_t y_step) {
  V a[kRows][kTile];
  TKT_UNROLL
  for (uint32_t i = 0; i < kRows; ++i) {
    TKT_UNROLL
    for (uint32_t t = 0; t < kTile; ++t) {
      a[i][t] = continued ? V::load(y + i * row_step + t * y_step) : V::broadcast(start[i]);
    }
  }
  for (uint32_t k = 0; k < count; ++k) {
    const float *at = x + ptrdiff_t(taps[k].offset) * ptrdiff_t(V::kLanes);
    TKT_UNROLL
    for (uint32_t t = 0; t < kTile; ++t) {
      const V in = V::load(at + t * x_step);  // an array of them would be put into memory
      TKT_UNROLL
      for (uint32_t i = 0; i < kRows; ++i) a[i][t] = fused(V::broadcast(taps[k].weight[i]), in, a[i][t]);
    }
  }
  TKT_UNROLL
  for (uint32_t i = 0; i < kRows; ++i) {
    TKT_UNROLL
    for (uint32_t t = 0; t < kTile; ++t) a[i][t].store(y + i * row_step + t * y_step);
  }
}

template <typename V, uint32_t kRows>
inline void correlate_line(const Tap<kRows> *taps, uint32_t count, const float *start, bool continued, const float *x,
                           size_t x_step, float *y, size_t row_step, size_t y_step, uint32_t width) {
  constexpr uint32_t kMost = kTilesAtOnce / kRows, kHalf = kMost > 8 ? 8 : kMost;
  uint32_t i = 0;
  const auto tile = [&](auto size) TKT_INLINE_LAMBDA {
    constexpr uint32_t kTile = decltype(size)::kSize;
    for (; i + kTile <= width; i += kTile) {
      correlate_tile<V, kRows, kTile>(taps, count, start, continued, x + i * x_step, x_step, y + i * y_step, row_step,
                                      y_step);
    }
  };
  if constexpr (kMost > 8) tile(Size<kMost>());
  if constexpr (kHalf > 4) tile(Size<kHalf>());
  if constexpr (kHalf >= 4) tile(Size<4>());
  tile(Size<1>());
}

// kRows rows of outputs, which share their entries, over `lines` lines of one group.
template <typename V, uint32_t kRows>
inline void correlate_rows(const Correlation &c, const Taps &entries, uint32_t row, const float *x, float *y,
                           uint32_t lines) {
  constexpr size_t kLanes = V::kLanes;
  const uint32_t end = entries.entries(row);
  float start[kRows];
  for (uint32_t i = 0; i < kRows; ++i) start[i] = c.bias ? c.bias[row + i] : 0.0f;
  Tap<kRows> taps[kTapsAtOnce];
  uint32_t k = 0;
  do {  // once for a row without entries, which still is its bias
    const uint32_t count = end - k < kTapsAtOnce ? end - k : kTapsAtOnce;
    const bool continued = c.accumulate || k > 0;
    entries.read(row, k, count, taps);
    for (uint32_t j = 0; j < lines; ++j) {
      correlate_line<V, kRows>(taps, count, start, continued, x + j * c.in_row * kLanes, c.in_column * kLanes,
                               y + j * c.out_row * kLanes, c.out_plane * kLanes, c.out_column * kLanes, c.width);
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
      for (uint32_t row = 0, done; row < c.rows; row += done, out += done * c.out_plane * kLanes) {
        done = entries.together(row) >= 4 ? 4 : 1;
        const float *from = in + entries.base(row) * kLanes;
        if (done == 4) correlate_rows<V, 4>(c, entries, row, from, out, lines);
        if (done == 1) correlate_rows<V, 1>(c, entries, row, from, out, lines);
      }
    }
  }
}

// kCount entries of each of kRows rows that share them: chains over groups and positions, then the sums over lanes, row by
// row.
template <typename V, uint32_t kRows, uint32_t kCount>
inline void tap_gradients(const Correlation &c, const int32_t *offsets, const float *x, const Tensor &dy,
                          const float *first_dy, size_t x_group, uint32_t groups, float *out) {
  constexpr size_t kLanes = V::kLanes;
  V a[kRows * kCount];
  TKT_UNROLL
  for (uint32_t n = 0; n < kRows * kCount; ++n) a[n] = V::zero();
  for (uint32_t g = 0; g < groups; ++g) {
    for (uint32_t j = 0; j < c.height; ++j) {
      const float *gradient = first_dy + g * dy.group_stride + j * c.out_row * kLanes;
      const float *line = x + g * x_group + j * c.in_row * kLanes;
      for (uint32_t i = 0; i < c.width; ++i, gradient += kLanes, line += c.in_column * kLanes) {
        V d[kRows];
        TKT_UNROLL
        for (uint32_t r = 0; r < kRows; ++r) d[r] = V::load(gradient + r * c.out_plane * kLanes);
        TKT_UNROLL
        for (uint32_t t = 0; t < kCount; ++t) {
          const V in = V::load(line + ptrdiff_t(offsets[t]) * ptrdiff_t(kLanes));
          TKT_UNROLL
          for (uint32_t r = 0; r < kRows; ++r) a[r * kCount + t] = fused(d[r], in, a[r * kCount + t]);
        }
      }
    }
  }
  sum_lanes<kRows * kCount>(a, out);
}

// Entries [k, end) of kRows rows that share them; `out` begins with the first value of the first row asked for.
template <typename V, uint32_t kRows>
inline void row_tap_gradients(const Correlation &c, const Taps &entries, uint32_t row, uint32_t k, uint32_t end,
                              const Tensor &x, const Tensor &dy, uint32_t groups, float *out) {
  constexpr uint32_t kAll = kSumsAtOnce<V>, kMany = kAll / kRows;
  const Matrix &m = *c.weight;
  const float *in = x.data + (c.in_origin + ptrdiff_t(entries.base(row))) * ptrdiff_t(V::kLanes);
  const float *gradient = dy.data + (size_t(row) * c.out_plane + c.out_origin) * V::kLanes;
  for (uint32_t left; k < end; k += left) {
    left = end - k < kMany ? end - k : kMany;
    Tap<1> taps[kMany];
    int32_t offsets[kMany];
    float sums[kAll];
    entries.read(row, k, left, taps);
    for (uint32_t t = 0; t < kMany; ++t) offsets[t] = taps[t < left ? t : 0].offset;
    if (kRows == 1 && kMany > 8 && left <= 8 && left > 4) {
      tap_gradients<V, 1, 8>(c, offsets, in, dy, gradient, x.group_stride, groups, sums);
    } else if (kRows == 1 && kMany > 4 && left <= 4) {
      tap_gradients<V, 1, 4>(c, offsets, in, dy, gradient, x.group_stride, groups, sums);
    } else {
      tap_gradients<V, kRows, kMany>(c, offsets, in, dy, gradient, x.group_stride, groups, sums);
    }
    for (uint32_t r = 0; r < kRows; ++r) {
      float *to = out + (m.value(c.first_row + row + r, k) - m.row_begin(c.first_row));
      for (uint32_t t = 0; t < left; ++t) to[size_t(t) * m.block] = sums[r * kMany + t];
    }
  }
}

template <typename V>
void correlation_gradient(const Correlation &c, const Tensor &x, const Tensor &dy, uint32_t groups, float *out) {
  constexpr uint32_t kTogether = kSumsAtOnce<V> == 16 ? 4 : 2;
  const Taps entries = {c};
  for (uint32_t block = 0; block < c.weight->cols; block += c.block) {
    for (uint32_t row = 0, done; row < c.rows; row += done) {
      const uint32_t begin = entries.find(row, block), end = entries.find(row, block + c.block);
      done = entries.together(row) >= kTogether ? kTogether : 1;
      if (done == 1) {
        row_tap_gradients<V, 1>(c, entries, row, begin, end, x, dy, groups, out);
      } else {
        row_tap_gradients<V, kTogether>(c, entries, row, begin, end, x, dy, groups, out);
      }
    }
  }
  clear_pruned(*c.weight, c.first_row, c.first_row + c.rows, out);
}

// dx += the transposed correlation, by its own entries: one chain an element. Needs no transposed pattern. What falls on
// the zeros around dx stays there.
template <typename V>
void scatter_correlation(const Correlation &c, const Tensor &dy, const Tensor &dx, uint32_t groups) {
  constexpr size_t kLanes = V::kLanes;
  const Taps entries = {c};
  Tap<1> tap[1];
  for (uint32_t g = 0; g < groups; ++g) {
    for (uint32_t row = 0; row < c.rows; ++row) {
      const float *gradient = dy.data + g * dy.group_stride + (c.out_origin + size_t(row) * c.out_plane) * kLanes;
      float *into = dx.data + g * dx.group_stride + (c.in_origin + ptrdiff_t(entries.base(row))) * ptrdiff_t(kLanes);
      for (uint32_t k = 0, end = entries.entries(row); k < end; ++k) {
        entries.read(row, k, 1, tap);
        const V weight = V::broadcast(tap[0].weight[0]);
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
