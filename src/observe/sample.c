/*
 * sample.c: turns counters in shared memory into rows.
 *
 * Once a minute the scheduler writes what has changed since the last sample into tables
 * (metrics.sql), and subtracts it from the cells of histograms after the commit: an error
 * loses nothing, a crash loses what was counted since the last sample.  A series stores the
 * time of its last sample (sampled_at).  A reader that adds rows and later counts looks at
 * memory first and at rows second; a row newer than sampled_at already includes the counts.
 *
 * A queue is sampled together with the series of its job names, since its histograms are
 * their sums.  Queues are sampled in portions, each in its own transaction, so that the
 * scheduler is never busy for long.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "event_queue.h"
#include "observe/metrics.h"
#include "queue/queue.h"
#include "table/table.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_live_metrics);
PG_FUNCTION_INFO_V1(eq_sampled_at);
PG_FUNCTION_INFO_V1(eq_series_use);
PG_FUNCTION_INFO_V1(eq_queue_now);

#define ROWS_OF_PORTION	 100
#define SLOTS_OF_PORTION 2000

/* Values of a queue's last sample, by slot number; protected by the lock of series. */
typedef struct Sampled
{
	TimestampTz at;
	uint64 counters[EQ_SERIES_COUNTERS];
} Sampled;

static Sampled *sampled = NULL;
static pg_atomic_uint64 *rounds =
	NULL; /* when a database's last one was, by its number */

static Size
samples_size(void)
{
	return add_size(mul_size(eq_max_databases, sizeof(pg_atomic_uint64)),
					mul_size(eq_max_queues, sizeof(Sampled)));
}

/* Leaves slots untouched until they are used: unused ones take no memory. */
static void
attach_samples(void *memory, LWLockPadded *locks, bool is_new)
{
	rounds = memory;
	sampled = (Sampled *) (rounds + eq_max_databases);
	for (int i = 0; i < eq_max_databases && is_new; i++)
		pg_atomic_init_u64(&rounds[i], 0);
}

static void
begin_database(int number)
{
	pg_atomic_write_u64(&rounds[number], 0);
}

static void
begin_slot(int number)
{
	memset(&sampled[number], 0, sizeof(Sampled));
	sampled[number].at = GetCurrentTimestamp();
}

const EqSharedPart eq_samples_part = {
	.name = "event_queue samples",
	.size = samples_size,
	.attach = attach_samples,
	.begin_database = begin_database,
	.begin_slot = begin_slot,
};

static Sampled *
sampled_of(const EqWakeSlot *slot)
{
	return &sampled[eq_slot_number(slot)];
}

static pg_atomic_uint64 *
round_of(const EqDatabase *db)
{
	return &rounds[eq_database_number(db)];
}

/* Values read of a queue or series. */
typedef struct Reading
{
	char kind;
	int32 queue_id;
	char name[EQ_MAX_NAME + 1];
	EqSeries *series; /* NULL: the queue itself */
	uint32 generation;
	EqWakeSlot *slot; /* of a queue; NULL: of a series */
	TimestampTz sampled_at;
	uint64 counters[EQ_SERIES_COUNTERS];
	int64 delta[EQ_SERIES_COUNTERS]; /* since the last sample */
	bytea *cells[EQ_HISTOGRAMS];
} Reading;

/* The series of this database, by queue. */
typedef struct Known
{
	int32 queue_id;
	EqSeries *series;
	uint32 generation;
} Known;

static int
compare_known(const void *a, const void *b)
{
	const Known *x = a;
	const Known *y = b;

	return x->queue_id < y->queue_id ? -1 : x->queue_id > y->queue_id;
}

/* Lists the series of this database, without a lock: a reader checks the generation again. */
static Known *
find_series(int *n)
{
	int all = eq_series_pool->max_jobs + eq_series_pool->max_tenants;
	Known *known = palloc(all * sizeof(Known));

	*n = 0;
	for (int i = 0; i < all; i++)
	{
		EqSeries *series = &eq_series_pool->series[i];
		uint32 generation = pg_atomic_read_u32(&series->generation);

		if (generation == 0)
			continue;
		pg_read_barrier();
		if (series->dboid != MyDatabaseId)
			continue;
		known[*n].series = series;
		known[*n].generation = generation;
		known[(*n)++].queue_id = series->queue_id;
	}
	qsort(known, *n, sizeof(Known), compare_known);
	return known;
}

/* The first one of this queue. */
static int
first_of_queue(const Known *known, int n, int32 queue_id)
{
	int low = 0;

	while (low < n)
	{
		int middle = low + (n - low) / 2;

		if (known[middle].queue_id < queue_id)
			low = middle + 1;
		else
			n = middle;
	}
	return low;
}

static bool
set_delta(Reading *reading, const uint64 *sampled)
{
	bool changed = false;

	for (int c = 0; c < EQ_SERIES_COUNTERS; c++)
	{
		reading->delta[c] = (int64) (reading->counters[c] - sampled[c]);
		changed = changed || reading->delta[c] != 0;
	}
	return changed;
}

/*
 * Reads a series, with the lock of series held.  False: it is another one's by now.
 */
static bool
read_series(const Known *known, Reading *reading, EqCells *cells, bool *changed)
{
	EqSeries *series = known->series;

	if (pg_atomic_read_u32(&series->generation) != known->generation)
		return false;
	reading->kind = series->kind;
	reading->queue_id = series->queue_id;
	strlcpy(reading->name, series->name, sizeof(reading->name));
	reading->series = series;
	reading->generation = known->generation;
	reading->slot = NULL;
	reading->sampled_at = series->sampled_at;
	for (int c = 0; c < EQ_SERIES_COUNTERS; c++)
		reading->counters[c] = pg_atomic_read_u64(&series->counters[c]);
	*changed = set_delta(reading, series->sampled);
	for (int h = 0; h < EQ_HISTOGRAMS; h++)
	{
		for (int i = 0; i < EQ_CELLS; i++)
			cells[h].n[i] = pg_atomic_read_u32(&series->cells[h][i]);
	}
	for (int i = 0; i < EQ_CELLS; i++)
	{
		cells[EQ_ATTEMPT_WAIT].n[i] += cells[EQ_WAIT].n[i];
		if (cells[EQ_ATTEMPT_WAIT].n[i] == 0 && cells[EQ_RUN].n[i] == 0)
			continue;
		*changed = true;
		reading->delta[EQ_COUNT_CLAIMED] += cells[EQ_ATTEMPT_WAIT].n[i];
		reading->delta[EQ_COUNT_WAIT_US] += (int64) (cells[EQ_ATTEMPT_WAIT].n[i] *
													 eq_cell_middle(i));
		reading->delta[EQ_COUNT_COMPLETED] += cells[EQ_RUN].n[i];
		reading->delta[EQ_COUNT_RUN_US] += (int64) (cells[EQ_RUN].n[i] *
													eq_cell_middle(i));
	}
	return true;
}

/* Reads the counters of a queue; likewise. */
static bool
read_slot(EqWakeSlot *slot, int32 queue_id, Reading *reading, bool *changed)
{
	memset(reading, 0, sizeof(Reading));
	reading->kind = EQ_SERIES_QUEUE;
	reading->queue_id = queue_id;
	reading->slot = slot;
	reading->sampled_at = sampled_of(slot)->at;
	for (int c = 0; c < EQ_SERIES_COUNTERS; c++)
		reading->counters[c] = pg_atomic_read_u64(&slot->counters[c]);
	*changed = set_delta(reading, sampled_of(slot)->counters);
	return eq_slot_database(slot) == MyDatabaseId && eq_slot_id(slot) == queue_id;
}

/* cells: NULL: all are empty. */
static void
encode(Reading *reading, const EqCells *cells)
{
	for (int h = 0; h < EQ_HISTOGRAMS; h++)
	{
		if (cells)
			reading->cells[h] = eq_encode_cells(&cells[h]);
		else
		{
			reading->cells[h] = palloc(VARHDRSZ);
			SET_VARSIZE(reading->cells[h], VARHDRSZ);
		}
	}
}

typedef struct Readings
{
	int n;
	int room;
	Reading *all;
} Readings;

static Reading *
next_reading(Readings *readings)
{
	if (readings->n == readings->room)
	{
		readings->room = Max(readings->room * 2, 64);
		readings->all = readings->all
							? repalloc_huge(readings->all,
											readings->room * sizeof(Reading))
							: MemoryContextAllocHuge(CurrentMemoryContext,
													 readings->room *
														 sizeof(Reading));
	}
	return &readings->all[readings->n];
}

/*
 * Reads a queue and the series of its names, those that have changed, or all of them.
 * The queue is first; what it has of cells is the sum of theirs.
 */
static void
read_queue(EqWakeSlot *slot, int32 queue_id, const Known *known, int n_known,
		   bool all, Readings *readings)
{
	static EqCells sums[EQ_HISTOGRAMS];
	static EqCells cells[EQ_HISTOGRAMS];
	Reading *queue = slot ? next_reading(readings) : NULL;
	int at; /* of the first series */
	bool queue_changed = false;
	bool some_changed = false;
	bool is_empty = true;

	LWLockAcquire(eq_series_pool->lock, LW_SHARED);
	if (slot && !read_slot(slot, queue_id, queue, &queue_changed))
	{
		LWLockRelease(eq_series_pool->lock);
		return;
	}
	LWLockRelease(eq_series_pool->lock);
	readings->n += slot ? 1 : 0;
	at = readings->n;
	for (int i = first_of_queue(known, n_known, queue_id);
		 i < n_known && known[i].queue_id == queue_id; i++)
	{
		Reading *reading = next_reading(readings);
		bool changed;
		bool read;

		LWLockAcquire(eq_series_pool->lock, LW_SHARED);
		read = read_series(&known[i], reading, cells, &changed);
		LWLockRelease(eq_series_pool->lock);
		if (!read || !(changed || all))
			continue;
		some_changed = some_changed || changed;
		if (is_empty)
			memset(sums, 0, sizeof(sums));
		is_empty = false;
		for (int h = 0; h < EQ_HISTOGRAMS; h++)
		{
			for (int c = 0; c < EQ_CELLS; c++)
				sums[h].n[c] += cells[h].n[c];
		}
		encode(reading, cells);
		readings->n++;
	}
	if (slot && (all || queue_changed || some_changed))
		encode(&readings->all[at - 1], is_empty ? NULL : sums);
	else if (slot)
		readings->n = at - 1;
}

static Datum
counters_datum(const int64 *counters)
{
	Datum values[EQ_SERIES_COUNTERS];

	for (int c = 0; c < EQ_SERIES_COUNTERS; c++)
		values[c] = Int64GetDatum(counters[c]);
	return PointerGetDatum(construct_array(values, EQ_SERIES_COUNTERS, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/* For SQL: what has been counted since the last sample.  NULL: of all kinds, or queues. */
Datum
eq_live_metrics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char kind = PG_ARGISNULL(0) ? '\0' : PG_GETARG_CHAR(0);
	int32 queue_id = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	Readings readings = {0};
	int n_known;
	Known *known = find_series(&n_known);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < eq_n_slots(); i++)
	{
		EqWakeSlot *slot = &eq_wake_slots[i];
		int32 id = eq_slot_id(slot);

		if (eq_slot_database(slot) != MyDatabaseId || id <= 0 ||
			(queue_id != 0 && id != queue_id) || kind == EQ_SERIES_TENANT)
			continue;
		CHECK_FOR_INTERRUPTS();
		read_queue(slot, id, known, n_known, true, &readings);
	}
	if (queue_id == 0 && kind != EQ_SERIES_QUEUE)
		read_queue(NULL, 0, known, n_known, true, &readings);
	for (int i = 0; i < readings.n; i++)
	{
		Reading *reading = &readings.all[i];
		Datum values[8];
		bool nulls[8] = {false};

		if (kind != '\0' && reading->kind != kind &&
			!(kind == EQ_SERIES_JOB && reading->kind == EQ_SERIES_OTHER_JOBS) &&
			!(kind == EQ_SERIES_TENANT && reading->kind == EQ_SERIES_OTHER_TENANTS))
			continue;
		values[0] = CharGetDatum(reading->kind);
		values[1] = Int32GetDatum(reading->queue_id);
		values[2] = CStringGetTextDatum(reading->name);
		values[3] = TimestampTzGetDatum(reading->sampled_at);
		values[4] = counters_datum(reading->delta);
		for (int h = 0; h < EQ_HISTOGRAMS; h++)
			values[5 + h] = PointerGetDatum(reading->cells[h]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static void
write_reading(const Reading *reading, TimestampTz at)
{
	static EqStatement write = {
		.sql =
			"SELECT event_queue_internal.write_sample($1, $2, $3, $4, $5, $6, $7, $8)",
		.n_arguments = 8,
		.types = {CHAROID, INT4OID, TEXTOID, TIMESTAMPTZOID, INT8ARRAYOID, BYTEAOID,
				  BYTEAOID, BYTEAOID}};
	Datum values[8] = {CharGetDatum(reading->kind), Int32GetDatum(reading->queue_id),
					   CStringGetTextDatum(reading->name), TimestampTzGetDatum(at),
					   counters_datum(reading->delta)};

	for (int h = 0; h < EQ_HISTOGRAMS; h++)
		values[5 + h] = PointerGetDatum(reading->cells[h]);
	eq_spi_run(&write, values, NULL);
}

/* The bucket of prometheus() that a cell's middle is in. */
int
eq_bucket_of(int cell)
{
	static int8 buckets[EQ_CELLS];
	static bool known = false;

	if (!known)
	{
		int bucket = 0;

		for (int i = 0; i < EQ_CELLS; i++)
		{
			while (bucket < EQ_BUCKETS - 1 &&
				   eq_cell_middle(i) / 1000000.0 > eq_bucket_ends[bucket])
				bucket++;
			buckets[i] = bucket;
		}
		known = true;
	}
	return buckets[cell];
}

/*
 * Takes out of memory what stands in rows now.  eq_slots_lock is held, so that the slot
 * is not another queue's before this is done.
 */
static void
forget_reading(const Reading *reading, const EqCells *cells, TimestampTz at)
{
	LWLockAcquire(eq_slots_lock, LW_SHARED);
	LWLockAcquire(eq_series_pool->lock, LW_EXCLUSIVE);
	if (reading->slot && eq_slot_database(reading->slot) == MyDatabaseId &&
		eq_slot_id(reading->slot) == reading->queue_id)
	{
		memcpy(sampled_of(reading->slot)->counters, reading->counters,
			   sizeof(reading->counters));
		sampled_of(reading->slot)->at = at;
	}
	if (reading->series &&
		pg_atomic_read_u32(&reading->series->generation) == reading->generation)
	{
		EqSeries *series = reading->series;

		memcpy(series->sampled, reading->counters, sizeof(reading->counters));
		series->sampled_at = at;
		series->idle = 0;
		series->activity = series->activity * 0.75 +
						   reading->delta[EQ_COUNT_CLAIMED] +
						   reading->delta[EQ_COUNT_ENQUEUED];
		for (int h = 0; h < EQ_HISTOGRAMS; h++)
		{
			for (int i = 0; i < EQ_CELLS; i++)
			{
				if (cells[h].n[i] == 0)
					continue;
				series->buckets[h][eq_bucket_of(i)] += cells[h].n[i];
				series->sums[h] += cells[h].n[i] * (eq_cell_middle(i) / 1000000.0);
				pg_atomic_fetch_sub_u32(&series->cells[h][i],
										h == EQ_ATTEMPT_WAIT
											? cells[h].n[i] - cells[EQ_WAIT].n[i]
											: cells[h].n[i]);
			}
		}
	}
	LWLockRelease(eq_series_pool->lock);
	LWLockRelease(eq_slots_lock);
}

/*
 * Returns the time to store for a sample: the beginning of its round, but later than sampled_at
 * of the series, or the row would look older than the counts in memory, which would then
 * count twice.  If the clock was set back: the beginning of the round.
 */
static TimestampTz
time_of_sample(const Reading *reading, TimestampTz round)
{
	return reading->sampled_at >= round &&
				   reading->sampled_at < GetCurrentTimestamp()
			   ? reading->sampled_at + 1
			   : round;
}

/* Writes readings in one transaction, and takes them out of memory. */
static void
keep_readings(const Readings *readings, TimestampTz round)
{
	EqCells *cells = palloc(EQ_HISTOGRAMS * sizeof(EqCells));
	TimestampTz *at = palloc(readings->n * sizeof(TimestampTz));
	EqSpi spi;

	if (readings->n == 0)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	for (int i = 0; i < readings->n; i++)
	{
		at[i] = time_of_sample(&readings->all[i], round);
		write_reading(&readings->all[i], at[i]);
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();

	for (int i = 0; i < readings->n; i++)
	{
		Reading *reading = &readings->all[i];

		memset(cells, 0, EQ_HISTOGRAMS * sizeof(EqCells));
		for (int h = 0; h < EQ_HISTOGRAMS && reading->series; h++)
			eq_add_encoded_cells(&cells[h], reading->cells[h], 1);
		forget_reading(reading, cells, at[i]);
	}
}

/*
 * A portion of a round of samples; true if there is more of it.  round is when it began; 0:
 * it begins now.  After an error the same portion is tried again.
 */
bool
eq_sample_metrics(TimestampTz *round)
{
	static int next_slot;
	static MemoryContext context =
		NULL; /* emptied by the next call after an error */
	MemoryContext old = CurrentMemoryContext;
	Readings readings = {0};
	int n_known;
	Known *known;
	int slot_number;
	bool is_last;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "event_queue sample",
										ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(context);
	MemoryContextSwitchTo(context);
	known = find_series(&n_known);

	if (*round == 0)
	{
		*round = GetCurrentTimestamp();
		next_slot = 0;
	}
	for (slot_number = next_slot;
		 slot_number < eq_n_slots() && slot_number < next_slot + SLOTS_OF_PORTION &&
		 readings.n < ROWS_OF_PORTION;
		 slot_number++)
	{
		EqWakeSlot *slot = &eq_wake_slots[slot_number];
		int32 id = eq_slot_id(slot);

		if (eq_slot_database(slot) == MyDatabaseId && id > 0)
			read_queue(slot, id, known, n_known, false, &readings);
	}
	is_last = slot_number >= eq_n_slots();
	if (is_last)
		read_queue(NULL, 0, known, n_known, false, &readings);
	keep_readings(&readings, *round);
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
	next_slot = slot_number;
	if (!is_last)
		return true;

	eq_give_back_quiet_series(*round);
	pg_atomic_write_u64(round_of(eq_database()), *round);
	*round = 0;
	return false;
}

/* When the last round of samples of this database began; 0: none since the start. */
TimestampTz
eq_last_sampled_at(void)
{
	EqDatabase *db = eq_find_database(MyDatabaseId);

	return db ? (TimestampTz) pg_atomic_read_u64(round_of(db)) : 0;
}

Datum
eq_sampled_at(PG_FUNCTION_ARGS)
{
	TimestampTz at = eq_last_sampled_at();

	if (at == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(at);
}

/* Returns how many series are in use, and how often none was free. */
Datum
eq_series_use(PG_FUNCTION_ARGS)
{
	Datum values[7];
	bool nulls[7] = {false};
	TimestampTz last;
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	LWLockAcquire(eq_series_pool->lock, LW_SHARED);
	values[0] = Int32GetDatum(eq_series_pool->n_jobs);
	values[2] = Int32GetDatum(eq_series_pool->n_tenants);
	LWLockRelease(eq_series_pool->lock);
	values[1] = Int32GetDatum(eq_series_pool->max_jobs);
	values[3] = Int32GetDatum(eq_series_pool->max_tenants);
	values[4] = Int64GetDatum((int64) pg_atomic_read_u64(&eq_series_pool->no_room));
	values[5] = Int64GetDatum(
		(int64) pg_atomic_read_u64(&eq_series_pool->no_tenants));
	last = (TimestampTz) pg_atomic_read_u64(&eq_series_pool->last_no_room);
	values[6] = TimestampTzGetDatum(last);
	nulls[6] = last == 0;
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* How many leases a queue has, sessions that wait for its jobs, and its last claim. */
Datum
eq_queue_now(PG_FUNCTION_ARGS)
{
	EqWakeSlot *slot = eq_find_wake_slot(PG_GETARG_INT32(0));
	Datum values[3] = {Int64GetDatum(0), Int32GetDatum(0)};
	bool nulls[3] = {false, false, true};
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (slot)
	{
		TimestampTz claimed = (TimestampTz) pg_atomic_read_u64(&slot->claimed_at);

		values[0] = Int64GetDatum(
			Max((int64) pg_atomic_read_u64(&slot->counters[EQ_COUNT_LEASED]), 0));
		values[1] = Int32GetDatum(pg_atomic_read_u32(&slot->waiters));
		values[2] = TimestampTzGetDatum(claimed);
		nulls[2] = claimed == 0;
	}
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
