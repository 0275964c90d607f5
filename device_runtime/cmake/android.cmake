# What the Android toolchain files share: clang-14 and lld-14 in the place of the NDK, with stand-ins for its C headers and
# its libc.so (android-stand-in/), since the runtime needs few functions of it. With the NDK at hand use the NDK's own
# toolchain file instead; sources and flags are the same.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_C_COMPILER clang-14)
set(CMAKE_CXX_COMPILER clang++-14)
set(CMAKE_C_COMPILER_TARGET ${TKT_ANDROID_TRIPLE})
set(CMAKE_CXX_COMPILER_TARGET ${TKT_ANDROID_TRIPLE})
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY) # no libc to link with, when CMake tries the compiler
set(TKT_ANDROID_STAND_IN ${CMAKE_CURRENT_LIST_DIR}/android-stand-in)
set(CMAKE_C_FLAGS_INIT "${TKT_CPU_FLAGS} -Qunused-arguments -nostdlibinc -isystem ${TKT_ANDROID_STAND_IN}")
set(CMAKE_CXX_FLAGS_INIT "${CMAKE_C_FLAGS_INIT} -nostdinc++")
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-fuse-ld=lld -nostdlib")
set(TKT_SHARED ON)
set(TKT_SMALL ON)
