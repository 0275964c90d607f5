// What the native methods share: their names, the artifact's bytes in a direct buffer, and options, statuses and texts on
// their way to Java. Nothing here throws: a method gives its status back, and the Java side makes the exception.
#pragma once

#include <jni.h>

#include <stdint.h>

#include "session.h"
#include "ticket_runtime.h"

// The native method `name` of io.pocketticket.Native.
#define TKT_NATIVE(type, name) extern "C" JNIEXPORT type JNICALL Java_io_pocketticket_Native_##name

namespace tkt_jni {

constexpr jint kNoMemory = -1;  // beside the statuses of the core

inline Session &session_at(jlong handle) { return *reinterpret_cast<Session *>(intptr_t(handle)); }

// The text goes over as bytes, since it may quote a damaged file, of which no Java string could be made here.
inline jint told(JNIEnv *env, tkt_status status, const tkt_error &error, jbyteArray text) {
  if (status != TKT_OK)
    env->SetByteArrayRegion(text, 0, sizeof error.text, reinterpret_cast<const jbyte *>(error.text));
  return status;
}

alignas(8) constexpr char kNothing[8] = {};

struct Bytes {
  const void *at;
  size_t count;
  Bytes(JNIEnv *env, jobject buffer)
      : at(env->GetDirectBufferAddress(buffer)), count(size_t(env->GetDirectBufferCapacity(buffer))) {
    if (!at) count = 0;  // not a direct buffer, whose capacity is -1
    if (count == 0) at = kNothing;
  }
};

// Fields in the order of TrainerOptions.java: whole numbers as they are, floats as their bits.
template <typename Field>
inline void each_option(tkt_options &o, Field &&field) {
  uint32_t *whole[] = {&o.batch, &o.optimizer, &o.kernels, &o.start};
  for (uint32_t *at : whole) field(*at);
  float *rates[] = {&o.learning_rate, &o.momentum, &o.weight_decay, &o.beta1, &o.beta2, &o.epsilon};
  for (float *at : rates) field(*at);
  field(o.nesterov);
  field(o.label_smoothing);
  field(o.clip_norm);
  field(o.schedule);
  field(o.warmup_steps);
  field(o.schedule_steps);
  field(o.schedule_factor);
  uint32_t *ways[] = {&o.micro_batch, &o.store_gradients, &o.recompute, &o.half_activations, &o.threads};
  for (uint32_t *at : ways) field(*at);
  field(o.seed);
  field(o.budget_bytes);
}
constexpr jsize kOptions = 24;

struct ToJava {
  jlong *to;
  void operator()(uint32_t value) { *to++ = jlong(value); }
  void operator()(uint64_t value) { *to++ = jlong(value); }
  void operator()(float value) {
    jint bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    *to++ = bits;
  }
};

struct FromJava {
  const jlong *from;
  void operator()(uint32_t &value) { value = uint32_t(*from++); }
  void operator()(uint64_t &value) { value = uint64_t(*from++); }
  void operator()(float &value) {
    const jint bits = jint(*from++);
    __builtin_memcpy(&value, &bits, sizeof value);
  }
};

inline tkt_options options_of(JNIEnv *env, jlongArray values) {
  jlong given[kOptions] = {};
  env->GetLongArrayRegion(values, 0, kOptions, given);
  tkt_options options = {};
  options.struct_bytes = sizeof options;
  each_option(options, FromJava{given});
  return options;
}

}  // namespace tkt_jni
