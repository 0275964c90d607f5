// The native methods on an artifact, before a trainer is there. Its bytes lie in a direct buffer and are read in place.
#include "methods.h"

using namespace tkt_jni;

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *, void *) { return JNI_VERSION_1_6; }

TKT_NATIVE(jboolean, isAligned)(JNIEnv *env, jclass, jobject buffer) {
  return reinterpret_cast<uintptr_t>(env->GetDirectBufferAddress(buffer)) % 8 == 0;
}

// `facts` in the order of InfoReader.java; the card by its place among the artifact's bytes.
TKT_NATIVE(jint, inspect)
(JNIEnv *env, jclass, jobject artifact, jlongArray facts, jbyteArray hash, jbyteArray text) {
  const Bytes bytes(env, artifact);
  tkt_info info = {};
  info.struct_bytes = sizeof info;
  tkt_error error = {};
  if (tkt_status status = tkt_inspect(bytes.at, bytes.count, &info, &error)) return told(env, status, error, text);
  const jlong values[] = {jlong(info.input_elements),
                          jlong(info.input_rank),
                          jlong(info.input_shape[0]),
                          jlong(info.input_shape[1]),
                          jlong(info.input_shape[2]),
                          jlong(info.input_shape[3]),
                          jlong(info.class_count),
                          jlong(info.loss),
                          jlong(info.node_count),
                          jlong(info.parameter_count),
                          jlong(info.has_trained),
                          jlong(info.value_count),
                          jlong(info.dense_count),
                          jlong(info.pruned_layer_live),
                          jlong(info.pruned_layer_weights),
                          jlong(info.card - static_cast<const char *>(bytes.at)),
                          jlong(info.card_bytes)};
  env->SetLongArrayRegion(facts, 0, jsize(sizeof values / sizeof values[0]), values);
  env->SetByteArrayRegion(hash, 0, sizeof info.ticket_hash, reinterpret_cast<const jbyte *>(info.ticket_hash));
  return TKT_OK;
}

// The operator of one node; a name of ASCII, or null for one without.
TKT_NATIVE(jstring, operatorName)(JNIEnv *env, jclass, jint code) {
  const char *name = tkt_operator_name(uint32_t(code));
  return name ? env->NewStringUTF(name) : nullptr;
}

TKT_NATIVE(jint, operators)(JNIEnv *env, jclass, jobject artifact, jintArray codes, jbyteArray text) {
  static_assert(sizeof(jint) == sizeof(uint32_t), "codes are written in place");
  const Bytes bytes(env, artifact);
  const jsize count = env->GetArrayLength(codes);
  const Pages pages(uint64_t(count) * sizeof(uint32_t));
  if (!pages.get()) return kNoMemory;
  tkt_error error = {};
  uint32_t *at = static_cast<uint32_t *>(pages.get());
  if (tkt_status status = tkt_operators(bytes.at, bytes.count, at, uint32_t(count), &error)) {
    return told(env, status, error, text);
  }
  env->SetIntArrayRegion(codes, 0, count, reinterpret_cast<const jint *>(at));
  return TKT_OK;
}

TKT_NATIVE(jint, defaultOptions)(JNIEnv *env, jclass, jobject artifact, jlongArray options, jbyteArray text) {
  const Bytes bytes(env, artifact);
  tkt_options recipe = {};
  recipe.struct_bytes = sizeof recipe;
  tkt_error error = {};
  if (tkt_status status = tkt_default_options(bytes.at, bytes.count, &recipe, &error)) {
    return told(env, status, error, text);
  }
  jlong values[kOptions];
  each_option(recipe, ToJava{values});
  env->SetLongArrayRegion(options, 0, kOptions, values);
  return TKT_OK;
}

// `parts` in the order of the fields of MemoryPlan.java.
TKT_NATIVE(jint, memoryPlan)
(JNIEnv *env, jclass, jobject artifact, jlongArray options, jlongArray parts, jbyteArray text) {
  const Bytes bytes(env, artifact);
  const tkt_options chosen = options_of(env, options);
  tkt_info info = {};
  info.struct_bytes = sizeof info;
  tkt_memory memory = {};
  memory.struct_bytes = sizeof memory;
  tkt_error error = {};
  tkt_status status = tkt_inspect(bytes.at, bytes.count, &info, &error);
  if (status == TKT_OK) status = tkt_memory_plan(bytes.at, bytes.count, &chosen, &memory, &error);
  if (status != TKT_OK) return told(env, status, error, text);
  const jlong values[] = {
      jlong(memory.values),      jlong(memory.gradients),
      jlong(memory.optimizer),   jlong(memory.activations),
      jlong(memory.index),       jlong(memory.bookkeeping),
      jlong(memory.total),       jlong(Transfer(info, chosen.batch).total() + aligned(memory.total) - memory.total),
      jlong(memory.micro_batch), jlong(memory.recomputed_nodes),
      jlong(memory.half_buffers)};
  env->SetLongArrayRegion(parts, 0, jsize(sizeof values / sizeof values[0]), values);
  return TKT_OK;
}
