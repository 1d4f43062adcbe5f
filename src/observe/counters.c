/*
 * counters.c: shows the counters that commits add up (wake/wake.c), and the background
 * workers.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "event_queue.h"
#include "observe/metrics.h"
#include "queue/queue.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"
#include "watch/watch.h"

PG_FUNCTION_INFO_V1(eq_queue_counters);
PG_FUNCTION_INFO_V1(eq_workers);
PG_FUNCTION_INFO_V1(eq_queue_depth);
PG_FUNCTION_INFO_V1(eq_count_row);
PG_FUNCTION_INFO_V1(eq_queue_figures);
PG_FUNCTION_INFO_V1(eq_shared_memory_use);

Datum
eq_queue_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < eq_n_slots() && !eq_is_bound(); i++)
	{
		EqWakeSlot *slot = &eq_wake_slots[i];
		int32 id = eq_slot_id(slot);
		Datum values[1 + EQ_COUNT_RETRIED];
		bool nulls[1 + EQ_COUNT_RETRIED] = {false};

		if (eq_slot_database(slot) != MyDatabaseId || id <= 0)
			continue;
		values[0] = Int32GetDatum(id);
		for (int c = 0; c < EQ_COUNT_RETRIED; c++)
		{
			uint64 n = pg_atomic_read_u64(&slot->counters[c]);

			if (c == EQ_COUNT_WAIT_US || c == EQ_COUNT_RUN_US)
				values[1 + c] = Float8GetDatum(n / 1000.0);
			else
				values[1 + c] = Int64GetDatum((int64) n);
		}
		if (eq_slot_database(slot) != MyDatabaseId || eq_slot_id(slot) != id)
			continue; /* dropped just now; the slot may be another queue's */
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
eq_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool is_bound = eq_may_be_bound(); /* health() asks, too */

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker worker;
		Datum values[4];
		bool nulls[4] = {false};
		uint64 job;

		LWLockAcquire(eq_workers_lock, LW_SHARED);
		worker = eq_worker_list[i];
		LWLockRelease(eq_workers_lock);
		if (worker.kind == EQ_WORKER_NONE || worker.dboid != MyDatabaseId)
			continue;
		/* A bound role must not see it: the job may be of another tenant. */
		job = is_bound ? 0 : pg_atomic_read_u64(&worker.current_job);
		values[0] = Int32GetDatum(worker.pid);
		values[1] = CStringGetTextDatum(
			worker.kind == EQ_WORKER_SCHEDULER ? "scheduler"
			: worker.kind == EQ_WORKER_RULES   ? "rule runner"
			: worker.kind == EQ_WORKER_KEEPER  ? "keeper"
			: worker.index < eq_executors	   ? "executor"
											   : "stand-in");
		values[2] = Int64GetDatum((int64) pg_atomic_read_u64(&worker.jobs_done));
		nulls[2] = is_bound; /* of all tenants together */
		values[3] = Int64GetDatum((int64) job);
		nulls[3] = job == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Row trigger on job and dead_letter: the C paths, which count, fire no triggers. */
Datum
eq_count_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	int change;
	bool isnull;
	bool is_job;
	int32 queue_id;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("count_row: not called by its triggers")));
	change = TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? -1 : 1;
	is_job = RelationGetRelid(trigger->tg_relation) == eq_relation_oid(EQ_JOB);
	/* Columns go by number: anyone's other table would be read beyond its end. */
	if (!is_job &&
		RelationGetRelid(trigger->tg_relation) != eq_relation_oid(EQ_DEAD_LETTER))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("count_row: not a trigger of table \"%s\"",
							   RelationGetRelationName(trigger->tg_relation))));
	queue_id = DatumGetInt32(
		heap_getattr(trigger->tg_trigtuple, is_job ? JOB_QUEUE : DEAD_QUEUE,
					 RelationGetDescr(trigger->tg_relation), &isnull));
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)) /* of job, to another queue */
	{
		eq_count_written(queue_id, -1, 0);
		eq_count_written(DatumGetInt32(heap_getattr(
							 trigger->tg_newtuple, JOB_QUEUE,
							 RelationGetDescr(trigger->tg_relation), &isnull)),
						 1, 0);
		PG_RETURN_POINTER(NULL);
	}
	eq_count_written(queue_id, is_job ? change : 0, is_job ? 0 : change);
	if (is_job && change < 0)
		eq_job_deleted(queue_id, trigger->tg_trigtuple,
					   RelationGetDescr(trigger->tg_relation));
	PG_RETURN_POINTER(NULL);
}

/* The counters of a queue, as read before its rows are counted. */
typedef struct Counted
{
	int32 queue_id;
	EqWakeSlot *slot;
	uint64 living;
	uint64 dead;
	uint64 leased;
} Counted;

/*
 * Counts the jobs and dead letters of each queue, where the counters that follow
 * commits can't be right: after a start, TRUNCATE, and two-phase commit.  Counters
 * are read before the snapshot is taken and corrected by the difference, so that
 * what commits in the meantime counts once.  Called by the scheduler.  Returns how many
 * transactions are prepared: it has to be done again later, since these may hold jobs.
 */
int64
eq_count_rows(void)
{
	EqSpi spi;
	int n = 0;
	Counted *counted;
	int64 n_prepared = 0;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute("SELECT q.queue_id FROM event_queue.queue q ORDER BY 1", true,
					0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table queue");
	counted = MemoryContextAllocHuge(CurTransactionContext,
									 Max(SPI_processed, 1) * sizeof(Counted));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		Counted *c = &counted[n];

		c->queue_id = DatumGetInt32(
			SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		c->slot = eq_wake_slot(c->queue_id);
		if (c->slot == NULL)
			continue;
		c->living = pg_atomic_read_u64(&c->slot->living);
		c->dead = pg_atomic_read_u64(&c->slot->dead_letters);
		c->leased = pg_atomic_read_u64(&c->slot->counters[EQ_COUNT_LEASED]);
		n++;
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();

	PushActiveSnapshot(GetLatestSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT q.queue_id, coalesce(j.n, 0), coalesce(d.n, 0), coalesce(j.leased, 0), (SELECT count(*) FROM"
			" pg_catalog.pg_prepared_xacts p WHERE p.database = pg_catalog.current_database())"
			" FROM event_queue.queue q"
			" LEFT JOIN (SELECT queue_id, count(*) AS n, count(leased_until) AS leased FROM event_queue.job GROUP BY 1) j USING (queue_id)"
			" LEFT JOIN (SELECT queue_id, count(*) AS n FROM event_queue.dead_letter GROUP BY 1) d"
			" USING (queue_id) ORDER BY 1",
			true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not count jobs");
	for (uint64 i = 0, at = 0; i < SPI_processed; i++)
	{
		bool isnull;
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		int32 queue_id = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		Counted *c;

		n_prepared = DatumGetInt64(SPI_getbinval(row, desc, 5, &isnull));
		while (at < n && counted[at].queue_id < queue_id)
			at++;
		if (at == n || counted[at].queue_id != queue_id)
			continue; /* created since: counted from its beginning */
		c = &counted[at];
		pg_atomic_fetch_add_u64(&c->slot->living,
								DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull)) -
									c->living);
		pg_atomic_fetch_add_u64(&c->slot->dead_letters,
								DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull)) -
									c->dead);
		pg_atomic_fetch_add_u64(&c->slot->counters[EQ_COUNT_LEASED],
								DatumGetInt64(SPI_getbinval(row, desc, 4, &isnull)) -
									c->leased);
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return n_prepared;
}

/* Values of counters at one time; rates are differences of two. */
typedef struct Sample
{
	int64 at; /* 0: none */
	uint64 enqueued;
	uint64 completed;
	uint64 failed;
} Sample;

#define SAMPLES 13 /* of the last minute; the scheduler takes one each EQ_RATES_US */

/* The samples of a queue, by the number of its slot; protected by eq_slots_lock. */
typedef struct Rates
{
	Sample samples[SAMPLES]; /* a ring */
	int last;
} Rates;

static Rates *rates = NULL;

static Size
rates_size(void)
{
	return mul_size(eq_max_queues, sizeof(Rates));
}

/* Leaves them untouched until they are used: unused ones take no memory. */
static void
attach_rates(void *memory, LWLockPadded *locks, bool is_new)
{
	rates = memory;
}

static void
begin_rates(int slot_number)
{
	memset(&rates[slot_number], 0, sizeof(Rates));
	rates[slot_number].samples[0].at = GetCurrentTimestamp();
}

const EqSharedPart eq_rates_part = {
	.name = "event_queue rates",
	.size = rates_size,
	.attach = attach_rates,
	.begin_slot = begin_rates,
};

static Sample
read_sample(EqWakeSlot *slot, TimestampTz now)
{
	Sample sample = {.at = now};

	sample.enqueued = pg_atomic_read_u64(&slot->counters[EQ_COUNT_ENQUEUED]);
	sample.completed = pg_atomic_read_u64(&slot->counters[EQ_COUNT_COMPLETED]);
	sample.failed = pg_atomic_read_u64(&slot->counters[EQ_COUNT_FAILED]);
	return sample;
}

/* For the scheduler, every EQ_RATES_US: what rates are measured against. */
void
eq_sample_counters(void)
{
	for (int i = 0; i < eq_n_slots(); i++)
	{
		EqWakeSlot *slot = &eq_wake_slots[i];

		if (eq_slot_database(slot) != MyDatabaseId || eq_slot_id(slot) <= 0)
			continue;
		LWLockAcquire(eq_slots_lock, LW_EXCLUSIVE);
		if (eq_slot_database(slot) == MyDatabaseId)
		{
			Rates *r = &rates[i];

			r->last = (r->last + 1) % SAMPLES;
			r->samples[r->last] = read_sample(slot, GetCurrentTimestamp());
		}
		LWLockRelease(eq_slots_lock);
	}
}

/* The oldest sample of the last minute; if there is none (no scheduler), the newest. */
static Sample
sample_to_compare(EqWakeSlot *slot, TimestampTz now)
{
	const Rates *r = &rates[eq_slot_number(slot)];
	Sample oldest;

	LWLockAcquire(eq_slots_lock, LW_SHARED);
	oldest = r->samples[r->last];
	for (int i = 0; i < SAMPLES; i++)
	{
		const Sample *sample = &r->samples[i];

		if (sample->at != 0 && sample->at >= now - USECS_PER_MINUTE &&
			sample->at < oldest.at)
			oldest = *sample;
	}
	LWLockRelease(eq_slots_lock);
	return oldest;
}

/*
 * What is known of a queue without counting: its jobs and dead letters, when the
 * first job of those that can be claimed came due, and the rates of the last
 * minute, or of the time since the queue was first used, but of one second at
 * least.
 */
Datum
eq_queue_depth(PG_FUNCTION_ARGS)
{
	/* A bound role must not see figures of all tenants. */
	const EqQueue *queue = eq_is_bound() ? NULL
										 : eq_get_queue_by_id(PG_GETARG_INT32(0));
	EqWakeSlot *slot = queue ? eq_wake_slot(queue->queue_id) : NULL;
	TimestampTz oldest = queue ? eq_oldest_ready(queue) : 0;
	Datum values[6] = {0};
	bool nulls[6] = {false};
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (slot)
	{
		Sample now = read_sample(slot, GetCurrentTimestamp());
		Sample then = sample_to_compare(slot, now.at);
		double seconds = Max((now.at - then.at) / (double) USECS_PER_SEC, 1);

		values[0] = Int64GetDatum(Max((int64) pg_atomic_read_u64(&slot->living), 0));
		values[2] = Int64GetDatum(
			Max((int64) pg_atomic_read_u64(&slot->dead_letters), 0));
		values[3] = Float8GetDatum((now.enqueued - then.enqueued) / seconds);
		values[4] = Float8GetDatum((now.completed - then.completed) / seconds);
		values[5] = Float8GetDatum((now.failed - then.failed) / seconds);
	}
	else
		memset(nulls, true, sizeof(nulls));
	values[1] = TimestampTzGetDatum(oldest);
	nulls[1] = oldest == 0;
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* For alerts: what is known of all queues without a look at a table. */
Datum
eq_queue_figures(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < eq_n_slots(); i++)
	{
		EqWakeSlot *slot = &eq_wake_slots[i];
		int32 id = eq_slot_id(slot);
		Datum values[5];
		bool nulls[5] = {false};
		Sample now;
		Sample then;
		double seconds;

		if (eq_slot_database(slot) != MyDatabaseId || id <= 0)
			continue;
		now = read_sample(slot, GetCurrentTimestamp());
		then = sample_to_compare(slot, now.at);
		seconds = Max((now.at - then.at) / (double) USECS_PER_SEC, 1);
		values[0] = Int32GetDatum(id);
		values[1] = Int64GetDatum(Max((int64) pg_atomic_read_u64(&slot->living), 0));
		values[2] = Int64GetDatum(
			Max((int64) pg_atomic_read_u64(&slot->dead_letters), 0));
		values[3] = Float8GetDatum((now.completed - then.completed) / seconds);
		values[4] = Float8GetDatum((now.failed - then.failed) / seconds);
		if (eq_slot_database(slot) != MyDatabaseId || eq_slot_id(slot) != id)
			continue; /* dropped just now; the slot may be another queue's */
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
eq_shared_memory_use(PG_FUNCTION_ARGS)
{
	EqDatabase *db = eq_find_database(MyDatabaseId);
	Datum values[5];
	bool nulls[5] = {false};
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum(eq_slots_taken());
	values[1] = Int32GetDatum(eq_max_queues);
	values[2] = Int32GetDatum(db ? db->without_slots : 0);
	values[3] = Int32GetDatum(eq_leases_taken());
	values[4] = Int32GetDatum(eq_max_limited_leases);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
