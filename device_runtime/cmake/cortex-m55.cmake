# Cortex-M55. Its vector unit (MVE) flushes subnormals, which changes bits: floats stay out of it, integers may use it.
set(TKT_CPU_FLAGS "-mcpu=cortex-m55+nomve.fp")
set(TKT_MACHINE mps3-an547)
set(TKT_CLOCK_HZ 32000000)
set(TKT_TEST_RAM 0x21000000) # megabytes, for the C tests
include(${CMAKE_CURRENT_LIST_DIR}/cortex-m.cmake)
