// Pooling. Windows reach over the edges into padding, which is skipped: the elements of a window are found by clipping it.

// The part of a window along one axis that lies inside.
struct Span {
  uint32_t begin, end;
};

inline Span window_span(uint32_t output, uint32_t kernel, uint32_t stride, uint32_t pad, uint32_t extent) {
  const uint32_t start = output * stride, stop = start + kernel;  // shifted by pad
  return {start > pad ? start - pad : 0, stop - pad < extent ? stop - pad : extent};
}

// Calls body(input rows, input columns, output element) for every window of every channel of one group.
template <typename Body>
TKT_INLINE void for_each_window(const Window &w, const Place &in, const Place &out, Body body) {
  for (uint32_t c = 0; c < out.channels; ++c) {
    for (uint32_t j = 0; j < out.rows; ++j) {
      const Span rows = window_span(j, w.kernel_h, w.stride_h, w.pad_h, in.rows);
      for (uint32_t i = 0; i < out.length; ++i) {
        body(c, rows, window_span(i, w.kernel_w, w.stride_w, w.pad_w, in.length), size_t(out.at(c, j, i)));
      }
    }
  }
}

template <typename V>
TKT_INLINE V largest_of(const float *in, const Place &p, uint32_t channel, Span rows, Span columns) {
  V best = V::load(in + size_t(p.at(channel, rows.begin, columns.begin)) * V::kLanes);
  for (uint32_t r = rows.begin; r < rows.end; ++r) {
    const float *line = in + size_t(p.at(channel, r, 0)) * V::kLanes;
    for (uint32_t i = columns.begin; i < columns.end; ++i) best = larger(V::load(line + i * V::kLanes), best);
  }
  return best;
}

template <typename V>
void max_pool(const Window &w, const Tensor &x, const Tensor &y, uint32_t groups) {
  for (uint32_t g = 0; g < groups; ++g) {
    const float *in = x.data + g * x.group_stride;
    float *out = y.data + g * y.group_stride;
    for_each_window(w, x.place, y.place, [&](uint32_t c, Span rows, Span columns, size_t to) {
      largest_of<V>(in, x.place, c, rows, columns).store(out + to * V::kLanes);
    });
  }
}

// What is left of dy goes to the first element that equals the maximum, which is found once more: cheaper than to keep it.
template <typename V>
void max_pool_gradient(const Window &w, const Tensor &x, const Tensor &dy, const Tensor &dx, uint32_t groups) {
  for (uint32_t g = 0; g < groups; ++g) {
    const float *in = x.data + g * x.group_stride;
    const float *gradient = dy.data + g * dy.group_stride;
    float *into = dx.data + g * dx.group_stride;
    for (uint32_t c = 0; c < dy.place.channels; ++c) {
      for (uint32_t j = 0; j < dy.place.rows; ++j) {
        const Span rows = window_span(j, w.kernel_h, w.stride_h, w.pad_h, x.place.rows);
        for (uint32_t i = 0; i < dy.place.length; ++i) {
          const Span columns = window_span(i, w.kernel_w, w.stride_w, w.pad_w, x.place.length);
          const V best = largest_of<V>(in, x.place, c, rows, columns);
          V left = V::load(gradient + size_t(dy.place.at(c, j, i)) * V::kLanes);
          for (uint32_t r = rows.begin; r < rows.end; ++r) {
            const float *line = in + size_t(x.place.at(c, r, 0)) * V::kLanes;
            float *line_into = into + size_t(dx.place.at(c, r, 0)) * V::kLanes;
            for (uint32_t k = columns.begin; k < columns.end; ++k) {
              const V taken = where_equal(V::load(line + k * V::kLanes), best, left);
              add(V::load(line_into + k * V::kLanes), taken).store(line_into + k * V::kLanes);
              left = subtract(left, taken);
            }
          }
        }
      }
    }
  }
}

inline float inverse_window(const Window &w, bool count_padding, Span rows, Span columns) {
  const uint32_t inside = (rows.end - rows.begin) * (columns.end - columns.begin);
  return 1.0f / float(count_padding ? w.kernel_h * w.kernel_w : inside);
}

template <typename V>
void average_pool(const Window &w, bool count_padding, const Tensor &x, const Tensor &y, uint32_t groups) {
  for (uint32_t g = 0; g < groups; ++g) {
    const float *in = x.data + g * x.group_stride;
    float *out = y.data + g * y.group_stride;
    for_each_window(w, x.place, y.place, [&](uint32_t c, Span rows, Span columns, size_t to) {
      V sum = V::zero();
      for (uint32_t r = rows.begin; r < rows.end; ++r) {
        const float *line = in + size_t(x.place.at(c, r, 0)) * V::kLanes;
        for (uint32_t i = columns.begin; i < columns.end; ++i) sum = add(sum, V::load(line + i * V::kLanes));
      }
      const V scale = V::broadcast(inverse_window(w, count_padding, rows, columns));
      multiply(sum, scale).store(out + to * V::kLanes);
    });
  }
}

template <typename V>
void average_pool_gradient(const Window &w, bool count_padding, const Tensor &dy, const Tensor &dx, uint32_t groups) {
  for (uint32_t g = 0; g < groups; ++g) {
    const float *gradient = dy.data + g * dy.group_stride;
    float *into = dx.data + g * dx.group_stride;
    for_each_window(w, dx.place, dy.place, [&](uint32_t c, Span rows, Span columns, size_t from) {
      const V scale = V::broadcast(inverse_window(w, count_padding, rows, columns));
      const V share = multiply(V::load(gradient + from * V::kLanes), scale);
      for (uint32_t r = rows.begin; r < rows.end; ++r) {
        float *line = into + size_t(dx.place.at(c, r, 0)) * V::kLanes;
        for (uint32_t i = columns.begin; i < columns.end; ++i) {
          add(V::load(line + i * V::kLanes), share).store(line + i * V::kLanes);
        }
      }
    });
  }
}

template <typename V>
void global_average(const Tensor &x, const Tensor &y, uint32_t groups) {
  const Place &p = x.place;
  const V scale = V::broadcast(1.0f / float(p.rows * p.length));
  for (uint32_t g = 0; g < groups; ++g) {
    for (uint32_t c = 0; c < p.channels; ++c) {
      V sum = V::zero();
      for (uint32_t j = 0; j < p.rows; ++j) {
        const float *line = x.data + g * x.group_stride + size_t(p.at(c, j, 0)) * V::kLanes;
        for (uint32_t i = 0; i < p.length; ++i) sum = add(sum, V::load(line + i * V::kLanes));
      }
      multiply(sum, scale).store(y.data + g * y.group_stride + size_t(c) * V::kLanes);
    }
  }
}

template <typename V>
void global_average_gradient(const Tensor &dy, const Tensor &dx, uint32_t groups, bool accumulate) {
  const Place &p = dx.place;
  const V scale = V::broadcast(1.0f / float(p.rows * p.length));
  for (uint32_t g = 0; g < groups; ++g) {
    for (uint32_t c = 0; c < p.channels; ++c) {
      const V share = multiply(V::load(dy.data + g * dy.group_stride + size_t(c) * V::kLanes), scale);
      for (uint32_t j = 0; j < p.rows; ++j) {
        float *line = dx.data + g * dx.group_stride + size_t(p.at(c, j, 0)) * V::kLanes;
        for (uint32_t i = 0; i < p.length; ++i) {
          float *to = line + i * V::kLanes;
          (accumulate ? add(V::load(to), share) : share).store(to);
        }
      }
    }
  }
}
