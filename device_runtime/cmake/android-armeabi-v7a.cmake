# Android armeabi-v7a without the NDK. VFPv4 has the fused multiply-add; NEON stays off: on 32 bits it flushes subnormals.
set(TKT_ANDROID_TRIPLE armv7a-linux-androideabi24)
set(TKT_CPU_FLAGS "-mthumb -mfpu=vfpv4-d16 -mfloat-abi=softfp")
set(CMAKE_SYSTEM_PROCESSOR armv7-a)
include(${CMAKE_CURRENT_LIST_DIR}/android.cmake)

# Division and conversion by software: the NDK has its own library for it; here Debian's gcc-arm-none-eabi lends one.
execute_process(COMMAND arm-none-eabi-gcc -march=armv7-a+fp -mthumb -mfloat-abi=softfp -print-libgcc-file-name
  OUTPUT_VARIABLE TKT_COMPILER_SUPPORT OUTPUT_STRIP_TRAILING_WHITESPACE)
