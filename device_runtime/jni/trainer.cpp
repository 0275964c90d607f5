// The native methods on an open trainer. Samples and targets are copied a batch at a time into the session's own memory,
// so that no Java array is held while the core computes; Java has checked counts and that the session is open.
#include "methods.h"

using namespace tkt_jni;

namespace {

// One row of targets per sample, of the kind that the loss takes.
void copy_targets(JNIEnv *env, const Session &session, jobject targets, jsize first, jsize count, uint32_t row) {
  const jsize width = jsize(session.target_elements), from = first * width, elements = count * width;
  if (session.has_labels) {
    env->GetIntArrayRegion(static_cast<jintArray>(targets), from, elements,
                           static_cast<jint *>(session.targets) + size_t(row));
  } else {
    env->GetFloatArrayRegion(static_cast<jfloatArray>(targets), from, elements,
                             static_cast<jfloat *>(session.targets) + size_t(row) * session.target_elements);
  }
}

void copy_samples(JNIEnv *env, const Session &session, jfloatArray samples, jsize first, jsize count, uint32_t row) {
  const jsize width = jsize(session.input_elements);
  env->GetFloatArrayRegion(samples, first * width, count * width,
                           session.samples + size_t(row) * session.input_elements);
}

// False with a Java exception pending, which an array that is shorter than Java said would leave.
bool copy_rows(JNIEnv *env, const Session &session, jfloatArray samples, jobject targets, jint first, jint count) {
  copy_samples(env, session, samples, first, count, 0);
  if (env->ExceptionCheck()) return false;
  if (targets) copy_targets(env, session, targets, first, count, 0);
  return !env->ExceptionCheck();
}

// The rows that the sampler drew.
bool gather_rows(JNIEnv *env, const Session &session, jfloatArray samples, jobject targets, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    copy_samples(env, session, samples, jsize(session.rows[i]), 1, i);
    if (env->ExceptionCheck()) return false;
    copy_targets(env, session, targets, jsize(session.rows[i]), 1, i);
    if (env->ExceptionCheck()) return false;
  }
  return true;
}

// Step, epoch, position, and the bits of the loss.
tkt_status tell_state(JNIEnv *env, const Session &session, float loss, jlongArray state, tkt_error *error) {
  tkt_progress progress = {};
  progress.struct_bytes = sizeof progress;
  if (tkt_status status = tkt_get_progress(session.trainer, &progress, error)) return status;
  jlong values[4];
  ToJava field{values};
  field(progress.step);
  field(progress.epoch);
  field(progress.position);
  field(loss);
  env->SetLongArrayRegion(state, 0, 4, values);
  return TKT_OK;
}

tkt_status step(JNIEnv *env, const Session &session, uint32_t count, jlongArray state, tkt_error *error) {
  float loss = 0;
  tkt_status status = tkt_train_step(session.trainer, session.samples, session.targets, count, &loss, error);
  return status ? status : tell_state(env, session, loss, state, error);
}

jint written(JNIEnv *env, const Session &session, decltype(&tkt_save) write, jbyteArray content, jbyteArray text) {
  const jsize bytes = env->GetArrayLength(content);
  const Pages pages{uint64_t(bytes)};
  if (!pages.get()) return kNoMemory;
  tkt_error error = {};
  const tkt_status status = write(session.trainer, pages.get(), size_t(bytes), &error);
  if (status == TKT_OK) env->SetByteArrayRegion(content, 0, bytes, static_cast<const jbyte *>(pages.get()));
  return told(env, status, error, text);
}

}  // namespace

TKT_NATIVE(jint, open)
(JNIEnv *env, jclass, jobject artifact, jlongArray options, jlongArray handle, jbyteArray text) {
  const Bytes bytes(env, artifact);
  const tkt_options chosen = options_of(env, options);
  tkt_info info = {};
  info.struct_bytes = sizeof info;
  uint64_t arena_bytes = 0;
  tkt_error error = {};
  tkt_status status = tkt_inspect(bytes.at, bytes.count, &info, &error);
  if (status == TKT_OK) status = tkt_arena_bytes(bytes.at, bytes.count, &chosen, &arena_bytes, &error);
  if (status != TKT_OK) return told(env, status, error, text);
  void *arena = nullptr;
  Session *session = map_session(info, chosen.batch, arena_bytes, &arena);
  if (!session) return kNoMemory;
  status = tkt_open(bytes.at, bytes.count, &chosen, arena, size_t(arena_bytes), &session->trainer, &error);
  if (status != TKT_OK) {
    unmap(session);
    return told(env, status, error, text);
  }
  const jlong address = jlong(reinterpret_cast<intptr_t>(session));
  env->SetLongArrayRegion(handle, 0, 1, &address);
  return TKT_OK;
}

TKT_NATIVE(void, close)(JNIEnv *, jclass, jlong handle) {
  Session &session = session_at(handle);
  tkt_close(session.trainer);
  unmap(&session);
}

// Draws the next batch and trains on it.
TKT_NATIVE(jint, fitStep)
(JNIEnv *env, jclass, jlong handle, jfloatArray samples, jobject targets, jint sample_count, jlongArray state,
 jbyteArray text) {
  const Session &session = session_at(handle);
  tkt_error error = {};
  uint32_t count = 0;
  tkt_status status = tkt_next_batch(session.trainer, uint32_t(sample_count), session.rows, &count, &error);
  if (status == TKT_OK && !gather_rows(env, session, samples, targets, count)) return TKT_OK;
  if (status == TKT_OK) status = step(env, session, count, state, &error);
  return told(env, status, error, text);
}

TKT_NATIVE(jint, trainStep)
(JNIEnv *env, jclass, jlong handle, jfloatArray samples, jobject targets, jint count, jlongArray state,
 jbyteArray text) {
  const Session &session = session_at(handle);
  if (!copy_rows(env, session, samples, targets, 0, count)) return TKT_OK;
  tkt_error error = {};
  return told(env, step(env, session, uint32_t(count), state, &error), error, text);
}

// Of `count` samples from `first` on, at most a batch: the sum of their losses, and how many are right.
TKT_NATIVE(jint, evaluate)
(JNIEnv *env, jclass, jlong handle, jfloatArray samples, jobject targets, jint first, jint count, jdoubleArray sums,
 jbyteArray text) {
  const Session &session = session_at(handle);
  if (!copy_rows(env, session, samples, targets, first, count)) return TKT_OK;
  double loss_sum = 0;
  uint32_t correct = 0;
  tkt_error error = {};
  const tkt_status status =
      tkt_evaluate(session.trainer, session.samples, session.targets, uint32_t(count), &loss_sum, &correct, &error);
  const jdouble values[] = {loss_sum, jdouble(correct)};
  if (status == TKT_OK) env->SetDoubleArrayRegion(sums, 0, 2, values);
  return told(env, status, error, text);
}

TKT_NATIVE(jint, predict)
(JNIEnv *env, jclass, jlong handle, jfloatArray samples, jint first, jint count, jfloatArray outputs, jbyteArray text) {
  const Session &session = session_at(handle);
  if (!copy_rows(env, session, samples, nullptr, first, count)) return TKT_OK;
  tkt_error error = {};
  const tkt_status status = tkt_predict(session.trainer, session.samples, uint32_t(count), session.outputs, &error);
  const jsize width = jsize(session.class_count);
  if (status == TKT_OK) env->SetFloatArrayRegion(outputs, first * width, count * width, session.outputs);
  return told(env, status, error, text);
}

TKT_NATIVE(void, values)(JNIEnv *env, jclass, jlong handle, jfloatArray values) {
  const Session &session = session_at(handle);
  env->SetFloatArrayRegion(values, 0, jsize(session.value_count), tkt_values(session.trainer));
}

TKT_NATIVE(jint, progress)(JNIEnv *env, jclass, jlong handle, jlongArray state, jbyteArray text) {
  tkt_error error = {};
  return told(env, tell_state(env, session_at(handle), 0, state, &error), error, text);
}

TKT_NATIVE(jint, setLearningRate)(JNIEnv *env, jclass, jlong handle, jfloat learning_rate, jbyteArray text) {
  tkt_error error = {};
  return told(env, tkt_set_learning_rate(session_at(handle).trainer, learning_rate, &error), error, text);
}

TKT_NATIVE(jint, reset)(JNIEnv *env, jclass, jlong handle, jbyteArray text) {
  tkt_error error = {};
  return told(env, tkt_reset(session_at(handle).trainer, &error), error, text);
}

TKT_NATIVE(jint, kernels)(JNIEnv *, jclass, jlong handle) {
  return jint(tkt_kernels_in_use(session_at(handle).trainer));
}

TKT_NATIVE(jlong, checkpointBytes)(JNIEnv *, jclass, jlong handle) {
  return jlong(tkt_checkpoint_bytes(session_at(handle).trainer));
}

TKT_NATIVE(jint, save)(JNIEnv *env, jclass, jlong handle, jbyteArray content, jbyteArray text) {
  return written(env, session_at(handle), tkt_save, content, text);
}

TKT_NATIVE(jint, restore)(JNIEnv *env, jclass, jlong handle, jbyteArray content, jbyteArray text) {
  const jsize bytes = env->GetArrayLength(content);
  const Pages pages{uint64_t(bytes)};
  if (!pages.get()) return kNoMemory;
  env->GetByteArrayRegion(content, 0, bytes, static_cast<jbyte *>(pages.get()));
  tkt_error error = {};
  return told(env, tkt_restore(session_at(handle).trainer, pages.get(), size_t(bytes), &error), error, text);
}

TKT_NATIVE(jlong, exportBytes)(JNIEnv *, jclass, jlong handle) {
  return jlong(tkt_export_bytes(session_at(handle).trainer));
}

TKT_NATIVE(jint, exportArtifact)(JNIEnv *env, jclass, jlong handle, jbyteArray content, jbyteArray text) {
  return written(env, session_at(handle), tkt_export, content, text);
}
