// TKT_UNROLL before a loop over an array of registers: only unrolled whole does the array leave memory.
#pragma once

#if defined(__clang__)
#define TKT_UNROLL _Pragma("unroll")
#else
#define TKT_UNROLL _Pragma("GCC unroll 16")
#endif
