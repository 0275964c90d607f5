# Android arm64-v8a without the NDK.
set(TKT_ANDROID_TRIPLE aarch64-linux-android24)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
include(${CMAKE_CURRENT_LIST_DIR}/android.cmake)
