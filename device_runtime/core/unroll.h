// For arrays that must live in registers: only unrolled whole and inlined do they leave memory. Plain C keeps its loops, and
// so do the sanitizers, which would take many minutes to compile the copies.
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TKT_PLAIN_C
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#undef TKT_PLAIN_C
#define TKT_PLAIN_C
#endif

// What is called once a row: not worth its copies where code must be small.
#if defined(TKT_SMALL)
#define TKT_INLINE_IF_LARGE __attribute__((noinline))
#else
#define TKT_INLINE_IF_LARGE TKT_INLINE
#endif

#if defined(TKT_PLAIN_C)
#define TKT_UNROLL
#define TKT_INLINE inline
#define TKT_INLINE_LAMBDA
#else
#define TKT_INLINE inline __attribute__((always_inline))
#define TKT_INLINE_LAMBDA __attribute__((always_inline))
#if defined(__clang__)
#define TKT_UNROLL _Pragma("unroll")
#else
#define TKT_UNROLL _Pragma("GCC unroll 16")
#endif
#endif
