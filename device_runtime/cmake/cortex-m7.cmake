# Cortex-M7 with the double-precision unit.
set(TKT_CPU_FLAGS "-mcpu=cortex-m7 -mfpu=fpv5-d16")
set(TKT_MACHINE mps2-an500)
set(TKT_CLOCK_HZ 25000000)
set(TKT_TEST_RAM 0x20000000) # megabytes, for the C tests
include(${CMAKE_CURRENT_LIST_DIR}/cortex-m.cmake)
