# Android x86_64 without the NDK.
set(TKT_ANDROID_TRIPLE x86_64-linux-android24)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
include(${CMAKE_CURRENT_LIST_DIR}/android.cmake)
