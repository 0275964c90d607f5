/* To link with in the place of Android's libc.so, which answers these names on the device. Nothing here ever runs. */
#define TKT_NAME(name) \
  void name(void);     \
  void name(void) {}

TKT_NAME(memcpy)
TKT_NAME(memmove)
TKT_NAME(memset)
TKT_NAME(memcmp)

#if defined(__arm__)
TKT_NAME(__aeabi_memcpy)
TKT_NAME(__aeabi_memcpy4)
TKT_NAME(__aeabi_memcpy8)
TKT_NAME(__aeabi_memmove)
TKT_NAME(__aeabi_memmove4)
TKT_NAME(__aeabi_memmove8)
TKT_NAME(__aeabi_memset)
TKT_NAME(__aeabi_memset4)
TKT_NAME(__aeabi_memset8)
TKT_NAME(__aeabi_memclr)
TKT_NAME(__aeabi_memclr4)
TKT_NAME(__aeabi_memclr8)
#endif

TKT_NAME(mmap)
TKT_NAME(munmap)
TKT_NAME(open)
TKT_NAME(fsync)
TKT_NAME(close)

TKT_NAME(pthread_create)
TKT_NAME(pthread_join)
TKT_NAME(pthread_sigmask)
TKT_NAME(sigfillset)
TKT_NAME(pthread_mutex_init)
TKT_NAME(pthread_mutex_lock)
TKT_NAME(pthread_mutex_unlock)
TKT_NAME(pthread_mutex_destroy)
TKT_NAME(pthread_cond_init)
TKT_NAME(pthread_cond_wait)
TKT_NAME(pthread_cond_signal)
TKT_NAME(pthread_cond_broadcast)
TKT_NAME(pthread_cond_destroy)
