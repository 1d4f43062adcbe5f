/*
 * enqueue.c: one job into a queue, in the caller's transaction.
 *
 * A unique key is protected like an event id (store/append.c): a lock on the
 * key, a dirty look-up, and a wait for an open transaction that uses it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_enqueue_sql);

#define MAX_DELAY (INT64CONST(100) * 365 * USECS_PER_DAY)

/* Microseconds of a delay; EQ014 if it is negative or longer than 100 years. */
int64
eq_check_delay(const Interval *delay, const char *what)
{
	int64 us = eq_interval_us(delay);

	if (us < 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("%s must not be negative", what)));
	if (us > MAX_DELAY)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("%s must not be longer than 100 years", what)));
	return us;
}

int
eq_check_priority(int priority)
{
	if (priority < EQ_PRIORITY_FIRST || priority > EQ_PRIORITY_LAST)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_PRIORITY),
						errmsg("priority %d is out of range", priority),
						errhint("Priorities go from %d (first) to %d (last).",
								EQ_PRIORITY_FIRST, EQ_PRIORITY_LAST)));
	return priority;
}

/* The job that holds a unique key; 0 if none does. */
static int64
find_unique_key(EqTable *jobs, const EqQueue *queue, const EqNewJob *job,
				TransactionId *open)
{
	SnapshotData dirty;
	EqScan scan;
	ScanKeyData keys[3];
	int64 job_id = 0;

	*open = InvalidTransactionId;
	InitDirtySnapshot(dirty);
	eq_scan_begin(&scan, jobs->rel, eq_relation_oid(EQ_JOB_UNIQUE), &dirty, 3);
	eq_scan_key(&scan, &keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(queue->queue_id));
	eq_scan_key(&scan, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(job->tenant));
	eq_scan_key(&scan, &keys[2], 3, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(job->unique_key));
	eq_scan_start(&scan, keys, 3);
	if (eq_scan_next(&scan, ForwardScanDirection))
	{
		bool isnull;

		job_id = DatumGetInt64(slot_getattr(scan.slot, JOB_ID, &isnull));

		/* Whether the key stays taken is known when that transaction ends. */
		*open = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
	}
	eq_scan_end(&scan);
	return job_id;
}

static int64
insert_job(EqTable *jobs, const EqQueue *queue, const EqNewJob *job)
{
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS] = {false};
	int64 job_id = nextval_internal(eq_relation_oid(EQ_JOB_ID_SEQ), false);
	Datum empty = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));

	values[JOB_ID - 1] = Int64GetDatum(job_id);
	values[JOB_QUEUE - 1] = Int32GetDatum(queue->queue_id);
	values[JOB_TENANT - 1] = CStringGetTextDatum(job->tenant);
	values[JOB_NAME - 1] = CStringGetTextDatum(job->name);
	values[JOB_PRIORITY - 1] = Int16GetDatum(job->priority);
	values[JOB_RUN_AT - 1] = TimestampTzGetDatum(job->run_at);
	values[JOB_CREATED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[JOB_MAX_ATTEMPTS - 1] = Int32GetDatum(job->max_attempts);
	nulls[JOB_MAX_ATTEMPTS - 1] = job->max_attempts == 0;
	values[JOB_BACKOFF - 1] = job->backoff ? CStringGetTextDatum(job->backoff)
										   : (Datum) 0;
	nulls[JOB_BACKOFF - 1] = job->backoff == NULL;
	values[JOB_BACKOFF_DELAY - 1] = IntervalPGetDatum(job->backoff_delay);
	nulls[JOB_BACKOFF_DELAY - 1] = job->backoff_delay == NULL;
	values[JOB_FAILURES - 1] = Int32GetDatum(0);
	values[JOB_STALLED - 1] = Int32GetDatum(0);
	nulls[JOB_LEASE_TOKEN - 1] = true;
	nulls[JOB_LEASED_UNTIL - 1] = true;
	nulls[JOB_LEASED_BY - 1] = true;
	values[JOB_UNIQUE_KEY - 1] = job->unique_key
									 ? CStringGetTextDatum(job->unique_key)
									 : (Datum) 0;
	nulls[JOB_UNIQUE_KEY - 1] = job->unique_key == NULL;
	values[JOB_PAYLOAD - 1] = job->payload ? JsonbPGetDatum(job->payload) : empty;
	values[JOB_METADATA - 1] = job->metadata ? JsonbPGetDatum(job->metadata) : empty;
	values[JOB_ERRORS - 1] = DirectFunctionCall1(jsonb_in, CStringGetDatum("[]"));
	eq_table_insert(jobs, values, nulls);
	return job_id;
}

/* Returns the id of the new job, or of the one that holds the unique key. */
int64
eq_enqueue(const EqQueue *queue, const EqNewJob *job)
{
	EqTable jobs;
	int64 job_id = 0;
	TransactionId open = InvalidTransactionId;
	uint32 hash = 0;

	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	if (job->unique_key)
		hash = hash_combine(
			hash_any((const unsigned char *) job->unique_key,
					 strlen(job->unique_key)),
			hash_combine(
				queue->queue_id,
				hash_any((const unsigned char *) job->tenant, strlen(job->tenant))));
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (job->unique_key)
		{
			eq_lock_key(EQ_LOCK_UNIQUE_KEY, hash);
			job_id = find_unique_key(&jobs, queue, job, &open);
		}
		if (job_id == 0)
		{
			job_id = insert_job(&jobs, queue, job);
			eq_count(queue->queue_id, EQ_COUNT_ENQUEUED, 1);
			eq_wake_queue(queue->queue_id);
			if (eq_notify_mode == EQ_NOTIFY_TRANSACTION)
				eq_notify_in_transaction(queue->name);
		}
		if (job->unique_key)
			eq_unlock_key(EQ_LOCK_UNIQUE_KEY, hash);
		if (!TransactionIdIsValid(open))
			break;

		XactLockTableWait(open, NULL, NULL, XLTW_None);
		job_id = 0;
	}
	eq_table_close(&jobs);
	CommandCounterIncrement();
	return job_id;
}

Datum
eq_enqueue_sql(PG_FUNCTION_ARGS)
{
	const EqQueue *queue;
	EqNewJob job = {0};

	queue = eq_get_queue(PG_ARGISNULL(0) ? NULL
										 : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	job.name = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	eq_check_name("job name", job.name, EQ_MAX_NAME);
	if (!PG_ARGISNULL(2))
	{
		job.payload = PG_GETARG_JSONB_P(2);
		eq_check_payload("job payload", job.payload);
	}

	job.run_at = GetCurrentTimestamp();
	if (!PG_ARGISNULL(3))
	{
		if (!PG_ARGISNULL(4))
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
							errmsg("delay and run_at exclude each other")));
		job.run_at += eq_check_delay(PG_GETARG_INTERVAL_P(3), "delay");
	}
	else if (!PG_ARGISNULL(4))
	{
		job.run_at = PG_GETARG_TIMESTAMPTZ(4);
		if (TIMESTAMP_NOT_FINITE(job.run_at))
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
							errmsg("run_at must be finite")));
	}
	job.priority = eq_check_priority(PG_ARGISNULL(5) ? EQ_PRIORITY_DEFAULT
													 : PG_GETARG_INT32(5));
	if (!PG_ARGISNULL(6))
	{
		job.max_attempts = PG_GETARG_INT32(6);
		if (job.max_attempts < 1 || job.max_attempts > 1000)
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
							errmsg("max_attempts must be between 1 and 1000")));
	}
	if (!PG_ARGISNULL(7))
	{
		job.backoff = text_to_cstring(PG_GETARG_TEXT_PP(7));
		if (strcmp(job.backoff, "exponential") != 0 &&
			strcmp(job.backoff, "fixed") != 0)
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
							errmsg("backoff must be exponential or fixed")));
	}
	if (!PG_ARGISNULL(8))
	{
		job.backoff_delay = PG_GETARG_INTERVAL_P(8);
		(void) eq_check_delay(job.backoff_delay, "backoff_delay");
	}
	if (!PG_ARGISNULL(9))
	{
		job.unique_key = text_to_cstring(PG_GETARG_TEXT_PP(9));
		eq_check_name("unique key", job.unique_key, EQ_MAX_NAME);
	}
	job.metadata = eq_job_metadata(PG_ARGISNULL(10) ? NULL : PG_GETARG_JSONB_P(10));
	if (job.metadata)
	{
		eq_check_payload("job metadata", job.metadata);
		if (!JB_ROOT_IS_OBJECT(job.metadata))
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
							errmsg("job metadata must be a JSON object")));
	}
	job.tenant = eq_resolve_tenant(
		PG_ARGISNULL(11) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(11)));

	PG_RETURN_INT64(eq_enqueue(queue, &job));
}
