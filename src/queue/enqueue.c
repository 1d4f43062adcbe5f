/*
 * enqueue.c: adds one job to a queue in the caller's transaction.
 *
 * A unique key is protected like an event id (store/append.c): a lock on the key, a dirty
 * look-up, and a wait for the open transaction that uses it.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/interval.h"
#include "common/json.h"
#include "queue/job_row.h"
#include "queue/queue.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/series.h"
#include "wake/wake.h"

#define CLOCK_SLACK_US USECS_PER_SEC

PG_FUNCTION_INFO_V1(eq_enqueue_sql);
PG_FUNCTION_INFO_V1(eq_lock_free_key);
PG_FUNCTION_INFO_V1(eq_unlock_key_sql);

/* Raises a NOTICE (EQ043) if the job that has the key is running with another payload. */
static void
tell_who_has_key(const EqNewJob *job, TupleTableSlot *holder)
{
	int64 job_id;

	slot_getallattrs(holder);
	job_id = DatumGetInt64(holder->tts_values[JOB_ID - 1]);
	if (holder->tts_isnull[JOB_LEASED_UNTIL - 1] ||
		compareJsonbContainers(
			&DatumGetJsonbP(holder->tts_values[JOB_PAYLOAD - 1])->root,
			job->payload ? &job->payload->root : &eq_empty_object()->root) == 0)
		return;
	ereport(
		NOTICE,
		(errcode(ERRCODE_EQ_KEY_IS_RUNNING),
		 errmsg("no job was added: job " INT64_FORMAT
				" is running with the unique key and another payload",
				job_id),
		 errhint(
			 "With options => '{\"unique_mode\": \"replace\"}' a job with this payload runs after it.")));
}

static uint32
hash_unique_key(int32 queue_id, const char *tenant, const char *unique_key)
{
	return hash_combine(
		hash_any((const unsigned char *) unique_key, strlen(unique_key)),
		hash_combine(queue_id,
					 hash_any((const unsigned char *) tenant, strlen(tenant))));
}

/*
 * Finds the job that holds a unique key; 0 if none does.  job: the one to be added, for a
 * NOTICE (tell_who_has_key); NULL: none.
 */
static int64
find_unique_key(EqTable *jobs, int32 queue_id, const char *tenant,
				const char *unique_key, const EqNewJob *job, TransactionId *open)
{
	SnapshotData dirty;
	EqScan scan;
	ScanKeyData keys[3];
	int64 job_id = 0;

	*open = InvalidTransactionId;
	InitDirtySnapshot(dirty);
	eq_scan_begin(&scan, jobs->rel, eq_relation_oid(EQ_JOB_UNIQUE), &dirty, 3);
	eq_scan_key(&scan, &keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(queue_id));
	eq_scan_key(&scan, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(tenant));
	eq_scan_key(&scan, &keys[2], 3, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(unique_key));
	eq_scan_start(&scan, keys, 3);
	if (eq_scan_next(&scan, ForwardScanDirection))
	{
		bool isnull;

		job_id = DatumGetInt64(slot_getattr(scan.slot, JOB_ID, &isnull));

		/* Whether the key stays taken is known when that transaction ends. */
		*open = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
		if (!TransactionIdIsValid(*open) && job &&
			job->unique_mode == EQ_UNIQUE_REJECT)
			tell_who_has_key(job, scan.slot);
	}
	eq_scan_end(&scan);
	return job_id;
}

/* The columns of a new job. */
void
eq_fill_job_row(EqTable *jobs, const EqQueue *queue, const EqNewJob *job,
				int64 job_id, int32 lane, TimestampTz now, int blocked,
				Datum *values, bool *nulls)
{
	memset(nulls, 0, JOB_COLUMNS * sizeof(bool));
	values[JOB_ID - 1] = Int64GetDatum(job_id);
	values[JOB_QUEUE - 1] = Int32GetDatum(queue->queue_id);
	values[JOB_LANE - 1] = Int32GetDatum(lane);
	values[JOB_RUN_AT - 1] = TimestampTzGetDatum(job->run_at);
	values[JOB_CREATED_AT - 1] = TimestampTzGetDatum(now);
	values[JOB_FAILURES - 1] = Int32GetDatum(0);
	values[JOB_STALLED - 1] = Int32GetDatum(0);
	values[JOB_PRIORITY - 1] = Int16GetDatum(job->priority);
	values[JOB_BLOCKED - 1] = Int16GetDatum(blocked);
	values[JOB_CANCEL - 1] = BoolGetDatum(false);
	values[JOB_HAS_DEPENDENTS - 1] = BoolGetDatum(false);
	values[JOB_UNIQUE_UNTIL_CLAIM - 1] = BoolGetDatum(job->unique_until_claim);
	values[JOB_TENANT - 1] = CStringGetTextDatum(job->tenant);
	values[JOB_NAME - 1] = CStringGetTextDatum(job->name);
	values[JOB_MAX_ATTEMPTS - 1] = Int32GetDatum(job->max_attempts);
	nulls[JOB_MAX_ATTEMPTS - 1] = job->max_attempts == 0;
	if (job->retry)
		values[JOB_RETRY - 1] = eq_row_datum(
			TupleDescAttr(RelationGetDescr(jobs->rel), JOB_RETRY - 1)->atttypid,
			job->retry->values, job->retry->nulls);
	nulls[JOB_RETRY - 1] = job->retry == NULL;
	values[JOB_TIME_LIMIT - 1] = IntervalPGetDatum(job->time_limit);
	nulls[JOB_TIME_LIMIT - 1] = job->time_limit == NULL;
	nulls[JOB_LEASE_TOKEN - 1] = true;
	nulls[JOB_LEASED_UNTIL - 1] = true;
	nulls[JOB_CLAIMED_AT - 1] = true;
	nulls[JOB_LEASE_PID - 1] = true;
	nulls[JOB_LEASED_BY - 1] = true;
	if (job->group_key)
		values[JOB_GROUP_KEY - 1] = CStringGetTextDatum(job->group_key);
	nulls[JOB_GROUP_KEY - 1] = job->group_key == NULL;
	if (job->unique_key && job->unique_mode != EQ_UNIQUE_THROTTLE)
		values[JOB_UNIQUE_KEY - 1] = CStringGetTextDatum(job->unique_key);
	nulls[JOB_UNIQUE_KEY - 1] = !job->unique_key ||
								job->unique_mode == EQ_UNIQUE_THROTTLE;
	values[JOB_PAYLOAD - 1] = JsonbPGetDatum(job->payload ? job->payload
														  : eq_empty_object());
	values[JOB_METADATA - 1] = JsonbPGetDatum(job->metadata);
	nulls[JOB_METADATA - 1] = job->metadata == NULL ||
							  (JB_ROOT_IS_OBJECT(job->metadata) &&
							   JB_ROOT_COUNT(job->metadata) == 0);
	nulls[JOB_ERRORS - 1] = true;
	nulls[JOB_PROGRESS - 1] = true;
	if (job->keep)
		values[JOB_KEEP - 1] = eq_row_datum(
			TupleDescAttr(RelationGetDescr(jobs->rel), JOB_KEEP - 1)->atttypid,
			job->keep->values, job->keep->nulls);
	nulls[JOB_KEEP - 1] = job->keep == NULL;
	values[JOB_HAS_STEPS - 1] = BoolGetDatum(false);
	values[JOB_SUSPENDED - 1] = BoolGetDatum(false);
}

/*
 * Counts n new jobs, notes the ready mark and wakes waiters.  job_id: the lowest of
 * them, 0: unknown.
 */
void
eq_after_enqueue(const EqQueue *queue, const EqNewJob *job, int64 job_id, int32 lane,
				 int blocked, int64 n)
{
	eq_count(queue->queue_id, EQ_COUNT_ENQUEUED, n);
	if (blocked == JOB_BLOCKED_BY_GROUP)
		eq_review_group(queue->queue_id, CStringGetTextDatum(job->tenant),
						CStringGetTextDatum(job->group_key));
	if (blocked != JOB_NOT_BLOCKED)
		return;
	eq_job_is_claimable(queue->queue_id, lane, job->priority, job->run_at, job_id,
						n);
	if (eq_notify_mode == EQ_NOTIFY_TRANSACTION)
		eq_notify_in_transaction(queue->name);
}

/* After commit, counts a new job by its name and its tenant. */
void
eq_count_new_job(const EqQueue *queue, const EqNewJob *job)
{
#ifndef EQ_NO_METRICS
	EqJobNames names = {queue->queue_id, job->name, strlen(job->name), job->tenant,
						strlen(job->tenant)};

	eq_count_job(&names, EQ_COUNT_ENQUEUED, 1, 0, false);
#endif
}

/* Inserts the row.  after: the job that this one has to follow; 0: none. */
static int64
insert_job(EqTable *jobs, const EqQueue *queue, const EqNewJob *job, int64 job_id,
		   int64 after)
{
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];
	int32 lane = eq_job_lane(queue, job->tenant, job->run_at);
	int blocked = JOB_NOT_BLOCKED;

	if (job_id == 0)
		job_id = nextval_internal(eq_relation_oid(EQ_JOB_ID_SEQ), false);
	if (job->depends_on && eq_add_dependencies(job_id, job->tenant, job->depends_on))
		blocked = JOB_BLOCKED_BY_DEPENDENCY;
	else if (job->group_key)
		blocked = JOB_BLOCKED_BY_GROUP;
	if (after != 0)
	{
		eq_add_follower(job_id, job->tenant, after);
		blocked = JOB_BLOCKED_BY_DEPENDENCY;
	}
	eq_fill_job_row(jobs, queue, job, job_id, lane, GetCurrentTimestamp(), blocked,
					values, nulls);
	eq_table_insert(jobs, values, nulls);
	eq_after_enqueue(queue, job, job_id, lane, blocked, 1);
	eq_count_new_job(queue, job);
	return job_id;
}

/*
 * For throttle: takes the window of the key for the job, unless another job has it; returns
 * the one that has it.  A window that began at a time to come is over: the clock was set back,
 * and it would last for longer than it was given.
 */
static int64
take_window(const EqQueue *queue, const EqNewJob *job, int64 job_id)
{
	static EqStatement take = {
		.sql =
			"INSERT INTO event_queue_internal.job_throttle AS t VALUES ($1, $2, $3, $4, $5, $6)"
			" ON CONFLICT (queue_id, tenant_id, unique_key) DO UPDATE"
			" SET job_id = CASE WHEN t.until <= $6 OR t.began_at > $7 THEN $4 ELSE t.job_id END,"
			" until = CASE WHEN t.until <= $6 OR t.began_at > $7 THEN $5 ELSE t.until END,"
			" began_at = CASE WHEN t.until <= $6 OR t.began_at > $7 THEN $6 ELSE t.began_at END"
			" RETURNING job_id",
		.n_arguments = 7,
		.types = {INT4OID, TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
				  TIMESTAMPTZOID}};
	TimestampTz now = GetCurrentTimestamp();
	Datum values[7] = {Int32GetDatum(queue->queue_id),
					   CStringGetTextDatum(job->tenant),
					   CStringGetTextDatum(job->unique_key),
					   Int64GetDatum(job_id),
					   TimestampTzGetDatum(now + job->unique_window),
					   TimestampTzGetDatum(now),
					   TimestampTzGetDatum(now + CLOCK_SLACK_US)};
	bool isnull;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&take, values, NULL);
	job_id = DatumGetInt64(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	eq_spi_end(&spi);
	return job_id;
}

typedef enum Replaced
{
	REPLACED,
	KEY_IS_FREE, /* it is gone by now, or has given the key up */
	FOLLOW_IT	 /* it was leased, and has given the key up to the new job */
} Replaced;

/*
 * replace and debounce: the waiting job that holds the key becomes the new one.  A
 * leased one has read its payload: it goes on without the key, and the new job is
 * to follow it.
 */
static Replaced
replace_job(EqTable *jobs, const EqQueue *queue, const EqNewJob *job, int64 job_id)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(jobs->rel, NULL);
	Replaced result = KEY_IS_FREE;
	bool is_locked;
	bool is_busy;
	int looks = 0;

	do
	{
		is_busy = false;
		is_locked = eq_lock_row(jobs, eq_relation_oid(EQ_JOB_PKEY), job_id, snapshot,
								slot, eq_enqueue_may_wait() ? NULL : &is_busy);
	} while (is_busy && eq_enqueue_looks_again(&looks));
	if (is_locked && !slot->tts_isnull[JOB_UNIQUE_KEY - 1])
	{
		EqJobEdit edit;

		eq_edit_job(&edit, slot);
		if (edit.nulls[JOB_LEASED_UNTIL - 1])
		{
			bool new_time = job->has_time || job->unique_mode == EQ_UNIQUE_DEBOUNCE;

			eq_edit_set(
				&edit, JOB_PAYLOAD,
				JsonbPGetDatum(job->payload ? job->payload : eq_empty_object()));
			if (job->metadata)
				eq_edit_set(&edit, JOB_METADATA, JsonbPGetDatum(job->metadata));
			eq_edit_set(&edit, JOB_PRIORITY, Int16GetDatum(job->priority));
			eq_edit_set_run_at(
				&edit, queue,
				new_time ? job->run_at
						 : DatumGetTimestampTz(edit.values[JOB_RUN_AT - 1]));
			result = REPLACED;
		}
		else
		{
			eq_edit_set_null(&edit, JOB_UNIQUE_KEY);
			eq_edit_set(&edit, JOB_HAS_DEPENDENTS, BoolGetDatum(true));
			result = FOLLOW_IT;
		}
		eq_write_job(jobs, snapshot, &edit);
	}
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	if (is_busy)
		eq_conflict_with_row(true, job_id);
	return result;
}

/* EQ034 if the queue is being drained, EQ036 if this store is not active. */
void
eq_require_accepting(const EqQueue *queue)
{
	eq_require_active();
	if (queue->draining)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_QUEUE_DRAINING),
				 errmsg("queue \"%s\" is being drained", queue->name),
				 errhint("Call event_queue.resume_queue to accept jobs again.")));
}

static int64
enqueue(const EqQueue *queue, const EqNewJob *job)
{
	EqTable jobs;
	int64 job_id = 0;
	int64 new_id = job->job_id;
	int64 after = 0; /* the job that is to end first */
	TransactionId open = InvalidTransactionId;
	uint32 hash = 0;
	bool done = false;
	int looks = 0;
	bool has_key = job->unique_key && job->unique_mode != EQ_UNIQUE_THROTTLE;

	eq_require_accepting(queue);
	eq_await_conflict();
	if (job->unique_key && !has_key)
	{
		if (new_id == 0)
			new_id = nextval_internal(eq_relation_oid(EQ_JOB_ID_SEQ), false);
		job_id = take_window(queue, job, new_id);
		if (job_id != new_id)
			return job_id;
	}
	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	if (has_key)
		hash = hash_unique_key(queue->queue_id, job->tenant, job->unique_key);
	while (!done)
	{
		int64 holder = 0;

		CHECK_FOR_INTERRUPTS();
		if (has_key)
		{
			eq_lock_key(EQ_LOCK_UNIQUE_KEY, hash);
			holder = find_unique_key(&jobs, queue->queue_id, job->tenant,
									 job->unique_key, job, &open);
		}
		if (holder == 0)
			job_id = insert_job(&jobs, queue, job, new_id, after);
		if (has_key)
			eq_unlock_key(EQ_LOCK_UNIQUE_KEY, hash);
		if (holder == 0)
			done = true;
		else if (TransactionIdIsValid(open) && eq_enqueue_may_wait())
			XactLockTableWait(open, NULL, NULL, XLTW_None);
		else if (TransactionIdIsValid(open))
		{
			if (!eq_enqueue_looks_again(&looks))
				eq_conflict_with_xact(open);
		}
		else
		{
			Replaced replaced = job->unique_mode == EQ_UNIQUE_REJECT
									? REPLACED
									: replace_job(&jobs, queue, job, holder);

			job_id = holder;
			done = replaced == REPLACED;
			if (replaced == FOLLOW_IT)
			{
				after = holder;
				CommandCounterIncrement();
			}
		}
	}
	eq_table_close(&jobs);
	CommandCounterIncrement();
	return job_id;
}

typedef struct Attempt
{
	const EqQueue *queue;
	const EqNewJob *job;
	int64 job_id;
} Attempt;

static void
attempt_enqueue(void *argument)
{
	Attempt *attempt = argument;

	attempt->job_id = enqueue(attempt->queue, attempt->job);
}

/* Returns the id of the new job, or of the one that holds the unique key. */
int64
eq_enqueue(const EqQueue *queue, const EqNewJob *job)
{
	Attempt attempt = {queue, job, 0};

	/* A key and the jobs to be depended on are several. */
	if (job->unique_key && job->depends_on && !eq_is_enqueue_attempt())
		eq_enqueue_by_attempts(attempt_enqueue, &attempt);
	else
		attempt_enqueue(&attempt);
	return attempt.job_id;
}

/*
 * lock_free_key: for SQL functions that insert a job with a unique key.  True: the key is
 * free, and locked until unlock_key; false: a job has it.
 */
Datum
eq_lock_free_key(PG_FUNCTION_ARGS)
{
	int32 queue_id = PG_GETARG_INT32(0);
	char *tenant = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char *unique_key = text_to_cstring(PG_GETARG_TEXT_PP(2));
	uint32 hash = hash_unique_key(queue_id, tenant, unique_key);
	bool is_patient = PG_GETARG_BOOL(3);
	int looks = 0;
	TransactionId open;
	int64 holder;
	EqTable jobs;

	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		eq_lock_key(EQ_LOCK_UNIQUE_KEY, hash);
		holder = find_unique_key(&jobs, queue_id, tenant, unique_key, NULL, &open);
		if (holder != 0)
			eq_unlock_key(EQ_LOCK_UNIQUE_KEY, hash);
		if (holder == 0 || !TransactionIdIsValid(open) ||
			!eq_look_again(is_patient, &looks))
			break;
	}
	eq_table_close(&jobs);
	if (holder != 0 && TransactionIdIsValid(open))
		eq_conflict_with_xact(open);
	PG_RETURN_BOOL(holder == 0);
}

Datum
eq_unlock_key_sql(PG_FUNCTION_ARGS)
{
	eq_unlock_key(EQ_LOCK_UNIQUE_KEY,
				  hash_unique_key(PG_GETARG_INT32(0),
								  text_to_cstring(PG_GETARG_TEXT_PP(1)),
								  text_to_cstring(PG_GETARG_TEXT_PP(2))));
	PG_RETURN_VOID();
}

/* A job's metadata as it was given, with its lineage; EQ005 if it is too large. */
Jsonb *
eq_new_job_metadata(Jsonb *given)
{
	Jsonb *metadata = eq_job_metadata(given);

	if (metadata)
		eq_check_payload("job metadata", metadata);
	return metadata;
}

Datum
eq_enqueue_sql(PG_FUNCTION_ARGS)
{
	static const struct
	{
		EqJobOption option;
		bool is_text;
	} arguments[] = {{EQ_OPTION_QUEUE, true},		{EQ_OPTION_NAME, true},
					 {EQ_OPTION_PAYLOAD, false},	{EQ_OPTION_DELAY, false},
					 {EQ_OPTION_RUN_AT, false},		{EQ_OPTION_PRIORITY, false},
					 {EQ_OPTION_UNIQUE_KEY, true},	{EQ_OPTION_GROUP_KEY, true},
					 {EQ_OPTION_DEPENDS_ON, false}, {EQ_OPTION_TENANT_ID, true}};
	const EqQueue *queue;
	EqNewJob job = {0};
	int n = lengthof(arguments);

	if (!PG_ARGISNULL(n))
		eq_read_job_options(&job, &PG_GETARG_JSONB_P(n)->root, EQ_IN_OPTIONS, false);
	for (int i = 0; i < n; i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		eq_set_job_option(&job, arguments[i].option,
						  arguments[i].is_text ? CStringGetDatum(text_to_cstring(
													 PG_GETARG_TEXT_PP(i)))
											   : PG_GETARG_DATUM(i));
	}
	queue = eq_get_queue(job.queue_name);
	eq_check_new_job(&job, queue, GetCurrentTimestamp());
	job.metadata = eq_new_job_metadata(job.metadata);
	job.tenant = eq_resolve_tenant(job.tenant);
	PG_RETURN_INT64(eq_enqueue(queue, &job));
}
