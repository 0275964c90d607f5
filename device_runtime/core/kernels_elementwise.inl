// Functions of single elements, and the optimizers: plain loops, which the compiler makes vectors of.

template <typename Function>
TKT_INLINE void map_one(const float *x, float *y, size_t count, Function f) {
  for (size_t i = 0; i < count; ++i) y[i] = f(x[i]);
}

// dx = or += dy * slope(kept)
template <typename Slope>
TKT_INLINE void map_gradient(const float *kept, const float *dy, float *dx, size_t count, bool accumulate, Slope f) {
  for (size_t i = 0; i < count; ++i) {
    const float v = f(kept[i], dy[i]);
    dx[i] = accumulate ? dx[i] + v : v;
  }
}

// Each function as a type with value(x, attribute) and gradient(kept, dy, attribute).
struct Relu {
  static TKT_INLINE float value(float x, float) { return x > 0 ? x : 0.0f; }
  static TKT_INLINE float gradient(float y, float dy, float) { return y > 0 ? dy : 0.0f; }
};
struct LeakyRelu {
  static TKT_INLINE float value(float x, float slope) { return x > 0 ? x : x * slope; }
  static TKT_INLINE float gradient(float y, float dy, float slope) { return y > 0 ? dy : dy * slope; }
};
struct Relu6 {
  static TKT_INLINE float value(float x, float) { return x > 0 ? (x < 6 ? x : 6.0f) : 0.0f; }
  static TKT_INLINE float gradient(float y, float dy, float) { return ((y > 0) & (y < 6)) ? dy : 0.0f; }
};
struct Hardswish {
  static TKT_INLINE float value(float x, float) {
    const float gate = Relu6::value(x + 3.0f, 0);
    return x * gate * 0.166666672f;
  }
  static TKT_INLINE float gradient(float x, float dy, float) {
    const float slope = fused_f32(x, 0.333333343f, 0.5f), inside = x < -3 ? 0.0f : slope;
    return dy * (x > 3 ? 1.0f : inside);
  }
};
struct Sigmoid {
  static TKT_INLINE float value(float x, float) { return sigmoid_f32(x); }
  static TKT_INLINE float gradient(float y, float dy, float) { return dy * (y * (1.0f - y)); }
};
struct Tanh {
  static TKT_INLINE float value(float x, float) { return tanh_f32(x); }
  static TKT_INLINE float gradient(float y, float dy, float) { return dy * fused_f32(-y, y, 1.0f); }
};
struct Gelu {  // x P(X <= x) for a standard normal X
  static TKT_INLINE float value(float x, float) { return 0.5f * x * (1.0f + erf_f32(x * 0.707106769f)); }
  static TKT_INLINE float gradient(float x, float dy, float) {
    const float below = 0.5f * (1.0f + erf_f32(x * 0.707106769f));
    const float density = 0.398942292f * exp_f32(-0.5f * x * x);
    return dy * fused_f32(x, density, below);
  }
};
struct GeluTanh {
  static TKT_INLINE float inner(float x) { return 0.797884583f * fused_f32(0.044715f * x * x, x, x); }
  static TKT_INLINE float value(float x, float) { return 0.5f * x * (1.0f + tanh_f32(inner(x))); }
  static TKT_INLINE float gradient(float x, float dy, float) {
    const float t = tanh_f32(inner(x));
    const float slope = 0.797884583f * fused_f32(0.134145f * x, x, 1.0f);
    return dy * (0.5f * (1.0f + t) + 0.5f * x * fused_f32(-t, t, 1.0f) * slope);
  }
};

template <typename F>
void unary_forward(const float *x, float *y, size_t count, float attribute) {
  map_one(x, y, count, [=](float v) { return F::value(v, attribute); });
}
template <typename F>
void unary_backward(const float *kept, const float *dy, float *dx, size_t count, float attribute, bool accumulate) {
  map_gradient(kept, dy, dx, count, accumulate, [=](float k, float d) { return F::gradient(k, d, attribute); });
}
template <typename F>
constexpr Unary unary() {
  return {unary_forward<F>, unary_backward<F>};
}

void add_arrays(const float *a, const float *b, float *y, size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] = a[i] + b[i];
}

void multiply_arrays(const float *a, const float *b, float *y, size_t count, bool accumulate) {
  for (size_t i = 0; i < count; ++i) {
    const float v = a[i] * b[i];
    y[i] = accumulate ? y[i] + v : v;
  }
}

void scale_channel(const ChannelScale &c, const float *x, float *y, size_t count) {
  const float mean = c.mean, scale = c.scale, shift = c.shift;
  for (size_t i = 0; i < count; ++i) y[i] = fused_f32(x[i] - mean, scale, shift);
}

void scale_channel_gradient(const ChannelGradient &c, const float *x, const float *dy, float *dx, size_t count,
                            bool accumulate) {
  const float mean = c.mean, scale = c.scale, constant = c.constant, slope = c.slope;
  for (size_t i = 0; i < count; ++i) {
    const float v = scale * fused_f32(-slope, x[i] - mean, dy[i] - constant);
    dx[i] = accumulate ? dx[i] + v : v;
  }
}

void scale(float factor, float *values, size_t count) {
  for (size_t i = 0; i < count; ++i) values[i] = values[i] * factor;
}

// Without a branch: compilers move arithmetic that may raise a flag into one, and then make no vectors.
TKT_INLINE uint32_t chosen(bool first, uint32_t a, uint32_t b) {
  const uint32_t mask = 0u - uint32_t(first);
  return (a & mask) | (b & ~mask);
}

// IEEE half floats by arithmetic that every target does alike: a sum with 1/2 has, where a half is subnormal, the unit in the
// last place of halves, and rounds as they do.
TKT_INLINE uint16_t half_of(float x) {
  constexpr uint32_t kLargest = 0x477FE000u, kInfinity = 0x7F800000u, kSmallestNormalHalf = 0x38800000u;
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
  const uint32_t finite = size < kLargest ? size : kLargest;
  const uint32_t normal = (finite - (112u << 23) + 0xFFFu + (finite >> 13 & 1u)) >> 13;
  const uint32_t subnormal = bits_of(float_of(size) + 0.5f) - bits_of(0.5f);
  const uint32_t half = chosen(finite < kSmallestNormalHalf, subnormal, normal);
  return static_cast<uint16_t>(sign | (size > kInfinity ? 0x7E00u : half));
}

TKT_INLINE float float_of_half(uint16_t half) {
  constexpr uint32_t kFromHalfToFloat = 112u << 23;  // the exponents' biases
  const uint32_t sign = uint32_t(half & 0x8000u) << 16, size = uint32_t(half & 0x7FFFu) << 13;
  const uint32_t normal =
      size + (size < 31u << 23 ? kFromHalfToFloat : 2 * kFromHalfToFloat);  // NaN has an exponent of its own
  const uint32_t subnormal = bits_of(float_of(size + (113u << 23)) - float_of(113u << 23));
  return float_of(sign | chosen(size < 1u << 23, subnormal, normal));
}

void halve(const float *x, uint16_t *half, size_t count) {
  for (size_t i = 0; i < count; ++i) half[i] = half_of(x[i]);
}

void expand(const uint16_t *half, float *x, size_t count) {
  for (size_t i = 0; i < count; ++i) x[i] = float_of_half(half[i]);
}

bool array_is_finite(const float *values, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t exponent = bits_of(values[i]) & 0x7F800000u;
    largest = exponent > largest ? exponent : largest;
  }
  return largest < 0x7F800000u;
}

// The moments of a weight whose gradient has become zero decay, and would stay subnormal for ever.
TKT_INLINE float without_subnormals(float x) { return __builtin_fabsf(x) < kSmallestNormal ? 0.0f : x; }

void sgd(const SgdStep &step, float *values, const float *gradients, float *velocity, size_t count) {
  const float decay = step.weight_decay, momentum = step.momentum, rate = step.minus_learning_rate;
  if (velocity == nullptr) {
    for (size_t i = 0; i < count; ++i)
      values[i] = fused_f32(rate, fused_f32(decay, values[i], gradients[i]), values[i]);
    return;
  }
  const bool nesterov = step.nesterov;
  for (size_t i = 0; i < count; ++i) {
    const float g = fused_f32(decay, values[i], gradients[i]);
    const float v = without_subnormals(fused_f32(momentum, velocity[i], g));
    velocity[i] = v;
    values[i] = fused_f32(rate, nesterov ? fused_f32(momentum, v, g) : v, values[i]);
  }
}

void adam(const AdamStep &step, float *values, const float *gradients, float *moment1, float *moment2, size_t count) {
  const AdamStep s = step;
  for (size_t i = 0; i < count; ++i) {
    const float w = values[i] * s.keep, g = fused_f32(s.weight_decay, values[i], gradients[i]);
    const float m = without_subnormals(fused_f32(s.beta1, moment1[i], s.one_minus_beta1 * g));
    const float v = without_subnormals(fused_f32(s.beta2, moment2[i], s.one_minus_beta2 * (g * g)));
    moment1[i] = m;
    moment2[i] = v;
    values[i] = w - s.step_size * (m / (__builtin_sqrtf(v) * s.inverse_sqrt + s.epsilon));
  }
}
