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

/* counters.c: rates are measured against samples that are taken so often */
#define EQ_RATES_US INT64CONST(5000000)

extern const EqSharedPart eq_rates_part;
extern int64 eq_count_rows(void);
extern void eq_sample_counters(void);

/* sample.c: a round of samples begins so often */
#define EQ_METRICS_US (60 * USECS_PER_SEC)

extern int eq_bucket_of(int cell);
extern const EqSharedPart eq_samples_part;
extern bool eq_sample_metrics(TimestampTz *round);
extern TimestampTz eq_last_sampled_at(void);

#endif /* EQ_METRICS_H */
