# Cortex-M4F: single precision in hardware, with the fused multiply-add; double precision in software.
set(TKT_CPU_FLAGS "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16")
set(TKT_MACHINE mps2-an386)
set(TKT_CLOCK_HZ 25000000)
set(TKT_TEST_RAM 0x20000000) # megabytes, for the C tests
include(${CMAKE_CURRENT_LIST_DIR}/cortex-m.cmake)
