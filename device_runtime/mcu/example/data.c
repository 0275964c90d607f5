/* Puts two files into read-only memory, as they are. The runtime reads the artifact in place, so it costs no RAM. */
#include "data.h"

#define FILE_AS(name, path)             \
  __asm__(".pushsection .rodata." name  \
          ",\"a\"\n"                    \
          ".balign 64\n"                \
          ".global " name "\n" name     \
          ":\n"                         \
          ".incbin \"" path             \
          "\"\n"                        \
          ".global " name "_end\n" name \
          "_end:\n"                     \
          ".byte 0\n"                   \
          ".popsection\n")

FILE_AS("g_ticket", TKT_TICKET);
FILE_AS("g_samples", TKT_SAMPLES);
