// For arrays that must live in registers: only unrolled whole and inlined do they leave memory. Plain C keeps its loops.
#pragma once

#if defined(TKT_PLAIN_C)
#define TKT_UNROLL
#define TKT_INLINE inline
#else
#define TKT_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define TKT_UNROLL _Pragma("unroll")
#else
#define TKT_UNROLL _Pragma("GCC unroll 16")
#endif
#endif
