/*
 * metrics.h: histograms, and samples of counters; for this room and the scheduler.
 */
#ifndef EQ_METRICS_H
#define EQ_METRICS_H

#include "fmgr.h"

#include "wake/series.h"

/* All cells of one histogram. */
typedef struct EqCells
{
	uint64 n[EQ_CELLS];
} EqCells;

/* histogram.c: cells as they are kept in tables */
extern bytea *eq_encode_cells(const EqCells *cells);
extern void eq_add_encoded_cells(EqCells *cells, const bytea *encoded, int sign);

/* sample.c: a round of samples begins so often */
#define EQ_METRICS_US (60 * USECS_PER_SEC)

extern int eq_bucket_of(int cell);
extern bool eq_sample_metrics(TimestampTz *round);

#endif /* EQ_METRICS_H */
