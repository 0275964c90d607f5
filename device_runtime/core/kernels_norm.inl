// Sums over a channel, layer normalisation and softmax.

// 1 in the lanes of a group that hold samples of a batch, else 0.
template <typename V>
inline V lanes_with_samples(uint32_t group, uint32_t samples) {
  alignas(64) float mask[V::kLanes];
  for (uint32_t l = 0; l < V::kLanes; ++l) mask[l] = group * V::kLanes + l < samples ? 1.0f : 0.0f;
  return V::load(mask);
}

// Sums of channel and the kCount - 1 after it, which have one element each: those of a linear layer.
template <typename V, uint32_t kCount>
inline void feature_sums(const float *first, size_t stride, uint32_t groups, float *out) {
  V a[kCount];
  TKT_UNROLL
  for (uint32_t n = 0; n < kCount; ++n) a[n] = V::zero();
  for (uint32_t g = 0; g < groups; ++g, first += stride) {
    TKT_UNROLL
    for (uint32_t n = 0; n < kCount; ++n) a[n] = add(a[n], V::load(first + n * V::kLanes));
  }
  sum_lanes<kCount>(a, out);
}

// Sums of kCount channels from `channel` on, of which `left` are there: chains over groups and positions.
template <typename V, uint32_t kCount>
inline void some_channel_sums(const Tensor &t, uint32_t groups, uint32_t channel, uint32_t left, float *out) {
  const Place &p = t.place;
  V a[kCount];
  TKT_UNROLL
  for (uint32_t n = 0; n < kCount; ++n) {
    const uint32_t c = channel + (n < left ? n : 0);
    a[n] = V::zero();
    for (uint32_t g = 0; g < groups; ++g) {
      for (uint32_t j = 0; j < p.rows; ++j) {
        const float *line = t.data + g * t.group_stride + size_t(p.at(c, j, 0)) * V::kLanes;
        for (uint32_t i = 0; i < p.length; ++i) a[n] = add(a[n], V::load(line + i * V::kLanes));
      }
    }
  }
  float sums[kCount];
  sum_lanes<kCount>(a, sums);
  for (uint32_t n = 0; n < kCount && n < left; ++n) out[n] = sums[n];
}

template <typename V>
void channel_sums(const Tensor &t, uint32_t groups, uint32_t first, uint32_t last, float *out) {
  constexpr uint32_t kMany = kSumsAtOnce<V>;
  uint32_t c = first;
  if (t.place.size == t.place.channels) {
    for (; c + kMany <= last; c += kMany) {
      feature_sums<V, kMany>(t.data + size_t(c) * V::kLanes, t.group_stride, groups, out + (c - first));
    }
  }
  for (; c < last; c += kMany) some_channel_sums<V, kMany>(t, groups, c, last - c, out + (c - first));
}

// Visits the elements of a channel in order, with the lanes that count.
template <typename V, typename Visit>
TKT_INLINE void for_each_of_channel(const Tensor &x, uint32_t samples, uint32_t channel, Visit visit) {
  const Place &p = x.place;
  const uint32_t groups = (samples + V::kLanes - 1) / V::kLanes;
  for (uint32_t g = 0; g < groups; ++g) {
    const V mask = lanes_with_samples<V>(g, samples);
    for (uint32_t j = 0; j < p.rows; ++j) {
      const float *line = x.data + g * x.group_stride + size_t(p.at(channel, j, 0)) * V::kLanes;
      for (uint32_t i = 0; i < p.length; ++i) visit(V::load(line + i * V::kLanes), mask, g, j, i);
    }
  }
}

// Sums of a[0] and, if asked for, a[1] over lanes.
template <typename V>
inline float lane_sum(const V (&a)[4], float *second = nullptr) {
  float sums[4];
  sum_lanes<4>(static_cast<const V *>(a), sums);
  if (second) *second = sums[1];
  return sums[0];
}

template <typename V>
float sum(const Tensor &x, uint32_t samples, uint32_t channel) {
  V a[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  for_each_of_channel<V>(x, samples, channel,
                         [&](V value, V mask, uint32_t, uint32_t, uint32_t) { a[0] = fused(value, mask, a[0]); });
  return lane_sum(a);
}

template <typename V>
void deviations(const Tensor &x, uint32_t samples, uint32_t channel, float centre, float *sum, float *squares) {
  const V from = V::broadcast(centre);
  V a[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  for_each_of_channel<V>(x, samples, channel, [&](V value, V mask, uint32_t, uint32_t, uint32_t) {
    const V deviation = multiply(subtract(value, from), mask);
    a[0] = add(a[0], deviation);
    a[1] = fused(deviation, deviation, a[1]);
  });
  *sum = lane_sum(a, squares);
}

template <typename V>
float sum_of_products(const Tensor &x, const Tensor &dy, uint32_t samples, uint32_t channel, float mean) {
  const V centre = V::broadcast(mean);
  V a[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  for_each_of_channel<V>(x, samples, channel, [&](V value, V, uint32_t g, uint32_t j, uint32_t i) {
    const float *gradient = dy.data + g * dy.group_stride + size_t(dy.place.at(channel, j, i)) * V::kLanes;
    a[0] = fused(V::load(gradient), subtract(value, centre), a[0]);
  });
  return lane_sum(a);
}

// Mean and 1 / deviation of every sample of one stretch of elements, to saved (2, lanes).
template <typename V>
inline void layer_statistics(const LayerNorm &n, const float *x, const Place &p, uint32_t first, float *saved) {
  V total = V::zero(), squares = V::zero();
  for (uint32_t i = 0; i < n.width; ++i) total = add(total, V::load(x + size_t(p.at(first + i)) * V::kLanes));
  const V mean = multiply(total, V::broadcast(1.0f / float(n.width)));
  for (uint32_t i = 0; i < n.width; ++i) {
    const V deviation = subtract(V::load(x + size_t(p.at(first + i)) * V::kLanes), mean);
    squares = fused(deviation, deviation, squares);
  }
  mean.store(saved);
  squares.store(saved + V::kLanes);
  for (uint32_t l = 0; l < V::kLanes; ++l) {
    float &s = saved[V::kLanes + l];
    s = 1.0f / __builtin_sqrtf(s * (1.0f / float(n.width)) + n.epsilon);
  }
}

template <typename V>
void layer_norm(const LayerNorm &n, const Tensor &x, const Tensor &y, uint32_t groups) {
  float *saved = n.saved;
  for (uint32_t g = 0; g < groups; ++g) {
    const float *in = x.data + g * x.group_stride;
    float *out = y.data + g * y.group_stride;
    for (uint32_t c = 0, first = 0; c < n.count; ++c, first += n.width, saved += 2 * V::kLanes) {
      layer_statistics<V>(n, in, x.place, first, saved);
      const V mean = V::load(saved), scale = V::load(saved + V::kLanes);
      for (uint32_t i = 0; i < n.width; ++i) {
        V v = multiply(subtract(V::load(in + size_t(x.place.at(first + i)) * V::kLanes), mean), scale);
        if (n.weight) v = fused(v, V::broadcast(n.weight[i]), V::broadcast(n.bias[i]));
        v.store(out + size_t(y.place.at(first + i)) * V::kLanes);
      }
    }
  }
}

// dx = scale * (d - mean(d) - n * mean(d n)) with d = dy * weight and n the normalised x.
template <typename V>
void layer_norm_gradient(const LayerNorm &n, const Tensor &x, const Tensor &dy, const Tensor &dx, uint32_t groups,
                         bool accumulate) {
  const float *saved = n.saved;
  const V inverse = V::broadcast(1.0f / float(n.width));
  for (uint32_t g = 0; g < groups; ++g) {
    const float *in = x.data + g * x.group_stride, *gradient = dy.data + g * dy.group_stride;
    float *into = dx.data + g * dx.group_stride;
    for (uint32_t c = 0, first = 0; c < n.count; ++c, first += n.width, saved += 2 * V::kLanes) {
      const V mean = V::load(saved), scale = V::load(saved + V::kLanes);
      V total = V::zero(), product = V::zero();
      for (uint32_t i = 0; i < n.width; ++i) {
        V d = V::load(gradient + size_t(dy.place.at(first + i)) * V::kLanes);
        if (n.weight) d = multiply(d, V::broadcast(n.weight[i]));
        total = add(total, d);
        const V value = V::load(in + size_t(x.place.at(first + i)) * V::kLanes);
        product = fused(d, multiply(subtract(value, mean), scale), product);
      }
      total = multiply(total, inverse);
      product = multiply(product, inverse);
      for (uint32_t i = 0; i < n.width; ++i) {
        V d = V::load(gradient + size_t(dy.place.at(first + i)) * V::kLanes);
        if (n.weight) d = multiply(d, V::broadcast(n.weight[i]));
        const V value = V::load(in + size_t(x.place.at(first + i)) * V::kLanes);
        const V normal = multiply(subtract(value, mean), scale);
        const V v = multiply(scale, subtract(subtract(d, total), multiply(normal, product)));
        float *to = into + size_t(dx.place.at(first + i)) * V::kLanes;
        (accumulate ? add(V::load(to), v) : v).store(to);
      }
    }
  }
}

template <typename V>
void layer_norm_sums(const LayerNorm &n, const Tensor &x, const Tensor &dy, uint32_t groups, bool bias, uint32_t first,
                     uint32_t last, float *out) {
  for (uint32_t i = first; i < last; ++i) {
    V a[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    const float *saved = n.saved;
    for (uint32_t g = 0; g < groups; ++g) {
      for (uint32_t c = 0; c < n.count; ++c, saved += 2 * V::kLanes) {
        const uint32_t element = c * n.width + i;
        const V d = V::load(dy.data + g * dy.group_stride + size_t(dy.place.at(element)) * V::kLanes);
        const V value = V::load(x.data + g * x.group_stride + size_t(x.place.at(element)) * V::kLanes);
        const V normal = multiply(subtract(value, V::load(saved)), V::load(saved + V::kLanes));
        a[0] = bias ? add(a[0], d) : fused(d, normal, a[0]);
      }
    }
    float sums[4];
    sum_lanes<4>(static_cast<const V *>(a), sums);
    out[i - first] = sums[0];
  }
}

// e^-64 is nothing beside the largest, which is 1; but carried on, what is smaller becomes subnormal on its way back through
// the layers, with which processors compute a hundred times more slowly.
constexpr float kNegligible = -64.0f;

template <typename V>
void softmax(const float *z, uint32_t classes, float *exponentials, float *maximum, float *sum) {
  V m = V::load(z), s = V::zero();
  for (uint32_t j = 1; j < classes; ++j) m = larger(V::load(z + size_t(j) * V::kLanes), m);
  for (uint32_t j = 0; j < classes; ++j) {
    alignas(64) float e[V::kLanes];
    subtract(V::load(z + size_t(j) * V::kLanes), m).store(e);
    for (float &lane : e) lane = lane < kNegligible ? 0.0f : exp_f32(lane);
    const V v = V::load(e);
    v.store(exponentials + size_t(j) * V::kLanes);
    s = add(s, v);
  }
  m.store(maximum);
  s.store(sum);
}
