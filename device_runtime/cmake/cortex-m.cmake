# What the Cortex-M toolchain files share: arm-none-eabi-gcc (Debian's gcc-arm-none-eabi), bare metal, no position-
# independent code. A file that includes this one sets TKT_CPU_FLAGS, and TKT_MACHINE, TKT_CLOCK_HZ and TKT_TEST_RAM of the
# board that QEMU emulates.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_CXX_COMPILER arm-none-eabi-g++)
set(TKT_MAX_NODES 64 CACHE STRING "") # planning takes about 90 bytes of stack a node
set(TKT_MAX_PARAMETERS 256 CACHE STRING "")
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY) # no linker script yet, when CMake tries the compiler
set(CMAKE_C_FLAGS_INIT "${TKT_CPU_FLAGS} -mthumb -mfloat-abi=hard -ffunction-sections -fdata-sections")
set(CMAKE_CXX_FLAGS_INIT "${CMAKE_C_FLAGS_INIT}")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,--gc-sections,--fatal-warnings,--no-warn-rwx-segments")
# One instruction is 2^7 = 128 ns of the emulated clock, so that the example can count instructions by the clock.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-system-arm -M ${TKT_MACHINE} -icount shift=7 -nographic -monitor none -serial none
  -chardev stdio,id=text -semihosting-config enable=on,target=native,chardev=text -kernel)
