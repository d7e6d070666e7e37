#pragma once
#define BATCH_PARTS 64 /* of a sum over a batch: a fixed number, so that results do not depend on the number of threads */
