/* Shared by winograd.c and winograd_filters.c: a transformed tile has at most MAX_TILE_SIDE elements along a side. */
#include "bf16.h"

#define MAX_TILE_SIDE 7
