// Makes the names in a folder safe from a loss of power, which Java can do from Android 26 on only (java.nio.file).
#include <fcntl.h>
#include <unistd.h>

#include "methods.h"

// Whether it is done. The path comes as bytes with a 0 at the end, since Java's strings are not the system's.
TKT_NATIVE(jboolean, syncFolder)(JNIEnv *env, jclass, jbyteArray path) {
  const jsize bytes = env->GetArrayLength(path);
  const tkt_jni::Pages pages{uint64_t(bytes)};
  if (!pages.get()) return false;
  env->GetByteArrayRegion(path, 0, bytes, static_cast<jbyte *>(pages.get()));
  const int folder = open(static_cast<const char *>(pages.get()), O_RDONLY);
  if (folder < 0) return false;
  const bool done = fsync(folder) == 0;
  close(folder);
  return done;
}
