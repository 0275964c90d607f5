/* The ticket and the samples that the build put into flash. */
#ifndef DATA_H
#define DATA_H

#include <stdint.h>

extern const uint8_t g_ticket[], g_ticket_end[];   /* the bytes of the artifact */
extern const uint8_t g_samples[], g_samples_end[]; /* of each sample: its label, then one byte an element */

#endif /* DATA_H */
