/*
 * series.h: counters and histograms of job names and tenants, in shared memory.
 *
 * Compiled with -DEQ_NO_METRICS nothing is counted here: for measuring what it costs.
 */
#ifndef EQ_SERIES_H
#define EQ_SERIES_H

#include "datatype/timestamp.h"
#include "port/pg_bitutils.h"

#include "event_queue.h"
#include "wake/slot.h"
#include "xact/xact.h"

/* What a series is of.  The letters are those of event_queue_internal.metric_series. */
#define EQ_SERIES_QUEUE 'q' /* a queue: its counters are in its slot */
#define EQ_SERIES_JOB	'j' /* the jobs of one name in a queue */
#define EQ_SERIES_OTHER_JOBS                                                        \
	'o' /* of all other names; queue 0: of all other queues */
#define EQ_SERIES_TENANT		't'
#define EQ_SERIES_OTHER_TENANTS 'u'

/* At most so many job names of one queue have series of their own. */
#define EQ_MAX_JOB_NAMES 64

/* Counters that a series, and a sample, has: the first ones of EqCounter. */
#define EQ_SERIES_COUNTERS (EQ_COUNT_RETRIED + 1)

typedef enum EqHistogram
{
	EQ_WAIT,		 /* from first due to first claimed */
	EQ_ATTEMPT_WAIT, /* from due to claimed, each attempt; in cells: those not first */
	EQ_RUN,			 /* from claimed to completed */
	EQ_HISTOGRAMS
} EqHistogram;

/*
 * Cells of a histogram are log-linear: 32 for each power of two of microseconds, from
 * 64 us to 12 days; below they are 2 us wide.  The middle of a cell is at most 1.6 % off
 * what is in it.
 */
#define EQ_CELLS_OF_OCTAVE 32
#define EQ_FIRST_OCTAVE	   6
#define EQ_LAST_OCTAVE	   39
#define EQ_CELLS		   ((EQ_LAST_OCTAVE - EQ_FIRST_OCTAVE + 2) * EQ_CELLS_OF_OCTAVE)

static inline int
eq_cell_of(int64 us)
{
	int octave;

	if (us < (1 << EQ_FIRST_OCTAVE))
		return us <= 0 ? 0 : (int) (us / 2);
	octave = pg_leftmost_one_pos64((uint64) us);
	if (octave > EQ_LAST_OCTAVE)
		return EQ_CELLS - 1;
	return (octave - EQ_FIRST_OCTAVE + 1) * EQ_CELLS_OF_OCTAVE +
		   (int) ((us >> (octave - 5)) & (EQ_CELLS_OF_OCTAVE - 1));
}

/* The middle of a cell, in microseconds. */
static inline double
eq_cell_middle(int cell)
{
	int octave = cell / EQ_CELLS_OF_OCTAVE + EQ_FIRST_OCTAVE - 1;
	int64 in_octave = cell % EQ_CELLS_OF_OCTAVE;

	if (cell < EQ_CELLS_OF_OCTAVE)
		return cell * 2 + 1;
	return (double) ((EQ_CELLS_OF_OCTAVE + in_octave) << (octave - 5)) +
		   (double) (INT64CONST(1) << (octave - 5)) / 2;
}

/* Buckets of prometheus(): upper ends in seconds are in series.c; the last is +Inf. */
#define EQ_BUCKETS 18
extern const double eq_bucket_ends[EQ_BUCKETS];

typedef struct EqSeries
{
	pg_atomic_uint32 generation; /* 0: free; differs each time it is taken */
	uint32 next;				 /* of its chain: its number + 1 */
	Oid dboid;
	int32 queue_id; /* 0: none */
	char kind;
	uint8 name_length;
	char name[EQ_MAX_NAME + 1];
	TimestampTz taken_at;
	TimestampTz freed_at;

	/* Counted since it was taken; but claimed and completed are counted in the cells. */
	pg_atomic_uint64 counters[EQ_SERIES_COUNTERS];

	/* Under the lock of series: what the last sample had of the above, and when. */
	TimestampTz sampled_at;
	uint64 sampled[EQ_SERIES_COUNTERS];
	uint64 buckets[EQ_HISTOGRAMS][EQ_BUCKETS]; /* of all samples */
	double sums[EQ_HISTOGRAMS];				   /* likewise, in seconds */
	uint32 idle;							   /* samples that found nothing new */
	double activity;						   /* claims in a sample, lately */

	/* Counted since the last sample. */
	pg_atomic_uint32 cells[EQ_HISTOGRAMS][EQ_CELLS];
} EqSeries;

typedef struct EqSeriesPool
{
	LWLock *lock;
	int max_jobs;	 /* the first ones are for jobs, */
	int max_tenants; /* the others for tenants */
	int n_jobs;		 /* taken */
	int n_tenants;
	uint32 last_generation;
	uint32 n_chains;
	uint32 *chains;
	EqSeries *series;
	pg_atomic_uint32 given_back;   /* how often room came */
	pg_atomic_uint64 no_room;	   /* look-ups that found none for a job name, */
	pg_atomic_uint64 no_tenants;   /* or a tenant, since the start */
	pg_atomic_uint64 last_no_room; /* when that was, of either */
} EqSeriesPool;

extern EqSeriesPool *eq_series_pool;

extern int eq_max_job_stats;
extern int eq_max_tenant_stats;
extern int eq_keep_metrics;
extern int eq_max_prometheus_size;

extern const EqSharedPart eq_series_part;
extern void eq_forget_series(Oid dboid, int32 queue_id);
extern void eq_give_back_quiet_series(TimestampTz round);
extern EqXactKind eq_counted_jobs;

/* The names of one job, as they lie in memory. */
typedef struct EqJobNames
{
	int32 queue_id;
	const char *name;
	int name_length;
	const char *tenant;
	int tenant_length;
} EqJobNames;

#ifdef EQ_NO_METRICS
#define eq_count_job(names, counter, n, us, first) ((void) (names))
#else
extern void eq_count_job(const EqJobNames *names, EqCounter counter, int n, int64 us,
						 bool first);
#endif

#endif /* EQ_SERIES_H */
