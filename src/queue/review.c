/*
 * review.c: decides which blocked jobs may run: jobs of groups, and dependents.
 *
 * Such jobs are entered blocked.  Whatever may unblock one (an enqueue into the group, the
 * end of a job of the group, the end of a dependency) writes a row into job_review in the
 * same transaction.  Only the scheduler reads these rows and unblocks jobs: it sees what is
 * committed, and after each commit that matters there is a row that it has not read yet.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "event_queue.h"
#include "common/try.h"
#include "queue/job_row.h"
#include "table/table.h"
#include "wake/wake.h"
#include "watch/watch.h"

#define BATCH	   1000
#define MAX_TURNS  100 /* tenants that have a turn in one batch */
#define MAX_TIMED  10000
#define LOOK_AHEAD 1000 /* for a due one among those that wait to be retried */
#define CAREFUL_US (10 * USECS_PER_SEC)

#define CAREFUL_TURN_US (100 * INT64CONST(1000))

/* A review that fails takes this long at the longest, and has so many times as long to wait. */
#define LONGEST_US	  (10 * USECS_PER_SEC)
#define FAILING_SHARE 10

/* Writes a row for review: of a group, or (group_key NULL) of a job. */
static void
write_review(int32 queue_id, Datum tenant, Datum group_key, int64 job_id)
{
	EqTable reviews;
	Datum values[REVIEW_COLUMNS];
	bool nulls[REVIEW_COLUMNS] = {false};

	values[REVIEW_ID - 1] = Int64GetDatum(
		nextval_internal(eq_relation_oid(EQ_JOB_REVIEW_SEQ), false));
	values[REVIEW_QUEUE - 1] = Int32GetDatum(queue_id);
	values[REVIEW_TENANT - 1] = tenant;
	values[REVIEW_GROUP_KEY - 1] = group_key;
	values[REVIEW_JOB - 1] = Int64GetDatum(job_id);
	/* The key tells groups from jobs: job_id may be 0, by plain SQL. */
	nulls[REVIEW_JOB - 1] = DatumGetPointer(group_key) != NULL;
	nulls[REVIEW_QUEUE - 1] = nulls[REVIEW_GROUP_KEY - 1] = !nulls[REVIEW_JOB - 1];
	nulls[REVIEW_TENANT - 1] = DatumGetPointer(tenant) == NULL;
	eq_table_open(&reviews, eq_relation_oid(EQ_JOB_REVIEW), REVIEW_COLUMNS);
	eq_table_insert(&reviews, values, nulls);
	eq_table_close(&reviews);
}

/* Has the scheduler review a group: a job of it has ended, or a new one was enqueued. */
void
eq_review_group(int32 queue_id, Datum tenant, Datum group_key)
{
	write_review(queue_id, tenant, group_key, 0);
	eq_wake_reviews();
}

/*
 * Writes a job as one that may be claimed, or, if it has a group, waits there.
 * False if someone has the row locked: the scheduler waits for no one, and looks
 * again with its next sweep.
 */
static bool
unblock(EqTable *jobs, TupleTableSlot *slot, Snapshot snapshot, int blocked)
{
	TupleTableSlot *locked = table_slot_create(jobs->rel, NULL);
	TM_FailureData failure;
	TM_Result result;

	result = table_tuple_lock(jobs->rel, &slot->tts_tid, snapshot, locked,
							  GetCurrentCommandId(false), LockTupleExclusive,
							  LockWaitSkip, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							  &failure);
	if (result == TM_Ok)
	{
		EqJobEdit edit;
		TimestampTz run_at;

		eq_edit_job(&edit, locked);
		eq_edit_set(&edit, JOB_BLOCKED, Int16GetDatum(blocked));
		/* Its place is after all waiting jobs, and so above the ready mark. */
		run_at = Max(DatumGetTimestampTz(edit.values[JOB_RUN_AT - 1]),
					 GetCurrentTimestamp());
		eq_edit_set_run_at(
			&edit, eq_get_queue_by_id(DatumGetInt32(edit.values[JOB_QUEUE - 1])),
			run_at);
		eq_write_job(jobs, snapshot, &edit);
	}
	ExecDropSingleTupleTableSlot(locked);
	return result != TM_WouldBlock;
}

/* When a row of group_review_at comes due, at the earliest; 0: none. */
static TimestampTz next_timed_review = 0;

/*
 * Has a group reviewed again at a time: its jobs that could run are not due before.  Where
 * someone has the group's row (an open drop_queue), with the next sweep: it waits for no one.
 */
static void
review_group_at(int32 queue_id, Datum tenant, Datum group_key, TimestampTz at)
{
	static EqStatement write = {
		.sql =
			"WITH here AS MATERIALIZED (SELECT g.ctid, g.review_at FROM event_queue_internal.group_review_at g"
			" WHERE (g.queue_id, g.tenant_id, g.group_key) = ($1, $2, $3) FOR UPDATE SKIP LOCKED),"
			" earlier AS (UPDATE event_queue_internal.group_review_at g SET review_at = $4 FROM here"
			" WHERE g.ctid = here.ctid AND here.review_at > $4),"
			" new AS (INSERT INTO event_queue_internal.group_review_at SELECT $1, $2, $3, $4"
			" WHERE NOT EXISTS (SELECT FROM event_queue_internal.group_review_at g"
			" WHERE (g.queue_id, g.tenant_id, g.group_key) = ($1, $2, $3)) RETURNING 1)"
			" SELECT FROM here UNION ALL SELECT FROM new",
		.n_arguments = 4,
		.types = {INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID}};
	Datum values[4] = {Int32GetDatum(queue_id), tenant, group_key,
					   TimestampTzGetDatum(at)};
	EqSpi spi;
	bool done;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&write, values, NULL);
	done = SPI_processed > 0;
	eq_spi_end(&spi);
	if (!done)
		write_review(queue_id, tenant, group_key, 0);
	else if (next_timed_review == 0 || at < next_timed_review)
		next_timed_review = at;
}

TimestampTz
eq_next_timed_review(void)
{
	return next_timed_review;
}

/* When a review that has failed may take the scheduler's time again, whichever it is; 0: none has. */
static TimestampTz failing_not_before = 0;

/*
 * For the scheduler, in a transaction of its own: groups whose time has come go into
 * job_review, MAX_TIMED at once, but those that someone has locked (an open drop_queue has).
 * With retry, the configuration has changed: where groups have failed, all go there, and are
 * tried at once.
 */
void
eq_take_timed_reviews(bool retry)
{
	static EqStatement take = {
		.sql =
			"WITH due AS (DELETE FROM event_queue_internal.group_review_at WHERE ctid = ANY (ARRAY("
			"SELECT ctid FROM event_queue_internal.group_review_at WHERE review_at <= $1"
			" ORDER BY review_at LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING *)"
			" INSERT INTO event_queue_internal.job_review (queue_id, tenant_id, group_key)"
			" SELECT queue_id, tenant_id, group_key FROM due",
		.n_arguments = 2,
		.types = {TIMESTAMPTZOID, INT8OID}};
	static EqStatement look = {
		.sql = "SELECT min(review_at) FROM event_queue_internal.group_review_at"};
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz now;
	EqSpi spi;
	bool isnull;
	Datum next;
	bool all = retry && failing_not_before != 0;
	Datum values[2] = {TimestampTzGetDatum(all ? DT_NOEND : GetCurrentTimestamp()),
					   Int64GetDatum(all ? PG_INT64_MAX : MAX_TIMED)};
	bool any_more;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&take, values, NULL);
	any_more = SPI_processed == MAX_TIMED;
	if (SPI_processed > 0)
		eq_wake_reviews();
	eq_spi_run(&look, NULL, NULL);
	next = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	now = GetCurrentTimestamp();
	/* Rows that are still due, unless there were too many, are locked: wait a second. */
	next_timed_review = isnull ? 0 : DatumGetTimestampTz(next);
	if (next_timed_review != 0 && next_timed_review <= now && !any_more)
		next_timed_review = now + USECS_PER_SEC;
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	if (retry)
		failing_not_before = 0;
}

/*
 * Lets jobs of a group run, in the order of their ids, until as many as the queue
 * allows may.  Where a failed job lets others pass, only those that are due may:
 * a job that waits for its time must not take another's place.
 */
static void
review_group(EqTable *jobs, Snapshot snapshot, int32 queue_id, Datum tenant,
			 Datum group_key, bool pass, int concurrency)
{
	EqScan scan;
	ScanKeyData keys[3];
	int running = 0;
	int looked = 0;
	bool locked = false; /* the next one, by someone */
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz first_due = 0;

	eq_scan_begin(&scan, jobs->rel, eq_relation_oid(EQ_JOB_GROUP), snapshot, 3);
	eq_scan_key(&scan, &keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(queue_id));
	eq_scan_key(&scan, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, tenant);
	eq_scan_key(&scan, &keys[2], 3, BTEqualStrategyNumber, F_TEXTEQ, group_key);
	eq_scan_start(&scan, keys, 3);
	/* Those that are not blocked come first in the index. */
	while (!locked && running < concurrency &&
		   eq_scan_next(&scan, ForwardScanDirection))
	{
		bool isnull;
		int blocked = DatumGetInt16(slot_getattr(scan.slot, JOB_BLOCKED, &isnull));
		TimestampTz due = DatumGetTimestampTz(
			slot_getattr(scan.slot, JOB_RUN_AT, &isnull));

		if (blocked == JOB_NOT_BLOCKED)
			running++;
		else if (blocked == JOB_BLOCKED_BY_DEPENDENCY)
			break; /* the others of the group are before it in the index */
		else if (!pass || due <= now)
		{
			locked = !unblock(jobs, scan.slot, snapshot, JOB_NOT_BLOCKED);
			running++;
		}
		else
		{
			if (first_due == 0 || due < first_due)
				first_due = due;
			if (++looked >= LOOK_AHEAD)
				break;
		}
	}
	if (!locked && running < concurrency && first_due != 0)
		review_group_at(queue_id, tenant, group_key, first_due);
	if (locked)
		write_review(queue_id, tenant, group_key, 0);
	eq_scan_end(&scan);
}

/* How many jobs does it still wait for? */
static int64
count_dependencies(int64 job_id)
{
	static EqStatement count = {
		.sql = "SELECT count(*) FROM event_queue.job_dependency"
			   " WHERE job_id = $1 AND completed_at IS NULL",
		.n_arguments = 1,
		.types = {INT8OID}};
	Datum value = Int64GetDatum(job_id);
	int64 result;
	bool isnull;
	EqSpi spi;

	PushActiveSnapshot(GetLatestSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&count, &value, NULL);
	result = DatumGetInt64(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	eq_spi_end(&spi);
	PopActiveSnapshot();
	return result;
}

/* A job that has nothing more to wait for joins its group, or may be claimed. */
static void
review_dependent(EqTable *jobs, Snapshot snapshot, int64 job_id)
{
	EqScan scan;
	ScanKeyData key;

	if (count_dependencies(job_id) > 0)
		return;
	eq_scan_begin(&scan, jobs->rel, eq_relation_oid(EQ_JOB_PKEY), snapshot, 1);
	eq_scan_key(&scan, &key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(job_id));
	eq_scan_start(&scan, &key, 1);
	if (eq_scan_next(&scan, ForwardScanDirection))
	{
		bool isnull;
		bool no_group;
		Datum tenant = slot_getattr(scan.slot, JOB_TENANT, &isnull);
		int32 queue_id = DatumGetInt32(slot_getattr(scan.slot, JOB_QUEUE, &isnull));
		Datum group_key = slot_getattr(scan.slot, JOB_GROUP_KEY, &no_group);

		if (DatumGetInt16(slot_getattr(scan.slot, JOB_BLOCKED, &isnull)) ==
			JOB_BLOCKED_BY_DEPENDENCY)
		{
			if (!unblock(jobs, scan.slot, snapshot,
						 no_group ? JOB_NOT_BLOCKED : JOB_BLOCKED_BY_GROUP))
				write_review(0, tenant, (Datum) 0, job_id);
			else if (!no_group)
				eq_review_group(queue_id, tenant, group_key);
		}
	}
	eq_scan_end(&scan);
}

/* One row of job_review, or several equal ones. */
typedef struct Review
{
	bool is_group;
	int64 job_id;
	int32 queue_id;
	Datum tenant;
	Datum group_key;
	bool queue_is_here;
	bool pass;
	int concurrency;
} Review;

static Review
read_review(HeapTuple row, TupleDesc desc)
{
	Review review;
	bool isnull;
	bool no_tenant;
	bool no_group;

	review.job_id = DatumGetInt64(SPI_getbinval(row, desc, 4, &review.is_group));
	review.queue_id = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
	review.tenant = SPI_getbinval(row, desc, 2, &no_tenant);
	review.group_key = SPI_getbinval(row, desc, 3, &no_group);
	review.pass = DatumGetBool(SPI_getbinval(row, desc, 7, &isnull));
	review.concurrency = DatumGetInt32(SPI_getbinval(row, desc, 8, &isnull));
	/* And the row is one of ours. */
	review.queue_is_here = !isnull && !no_tenant && !no_group;
	return review;
}

static void
do_review(EqTable *jobs, Snapshot snapshot, const Review *review)
{
	if (!review->is_group)
		review_dependent(jobs, snapshot, review->job_id);
	else if (review->queue_is_here)
		review_group(jobs, snapshot, review->queue_id, review->tenant,
					 review->group_key, review->pass, review->concurrency);
}

typedef struct ReviewCall
{
	Snapshot snapshot;
	const Review *review;
} ReviewCall;

static void
call_review(void *argument)
{
	ReviewCall *call = argument;
	EqTable jobs;

	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	do_review(&jobs, call->snapshot, call->review);
	eq_table_close(&jobs);
}

/* A lock that can't be had is one on a table: all reviews need it. */
static bool
is_of_all(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		   error->sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/* Until then each review has a subtransaction. */
static TimestampTz careful_until = 0;

/* Under this name its fault is shown; one for each group, as it has its own back-off. */
static char *
item_of(const Review *review)
{
	const EqQueue *queue;
	char *tenant;

	if (!review->is_group)
		return psprintf(INT64_FORMAT, review->job_id);
	queue = eq_get_queue_by_id(review->queue_id);
	tenant = TextDatumGetCString(review->tenant);
	return psprintf(*tenant ? "%s of queue %s, tenant %s" : "%s of queue %s",
					TextDatumGetCString(review->group_key),
					queue ? queue->name : "?", tenant);
}

/* Has it done again at a time, 0: soon; a job that depends on others with the next sweep. */
static void
review_again(const Review *review, TimestampTz at)
{
	if (!review->is_group)
		write_review(0, review->tenant, (Datum) 0, review->job_id);
	else if (at == 0)
		write_review(review->queue_id, review->tenant, review->group_key, 0);
	else
		review_group_at(review->queue_id, review->tenant, review->group_key, at);
	careful_until = Max(careful_until, at + CAREFUL_US);
}

/*
 * Does a review in a subtransaction, so that an error affects only this group or job, which
 * is reviewed again after its back-off, whoever asks for it meanwhile.  Functions in indexes
 * of users may take seconds before they fail, of many groups: what has failed before gets a
 * small share of the time.  False if it is put off.
 */
static bool
try_review(Snapshot snapshot, const Review *review)
{
	ReviewCall call = {snapshot, review};
	const char *what = review->is_group ? "group" : "job that depends on others";
	char *item = item_of(review);
	TimestampTz began = GetCurrentTimestamp();
	TimestampTz retry_at;
	TimestampTz now;
	int failures = eq_failures_of(what, item, &retry_at);
	ErrorData *error;

	if (failures > 0 && failing_not_before <= began + FAILING_SHARE * LONGEST_US)
		retry_at = Max(retry_at, failing_not_before);
	if (failures > 0 && retry_at > began)
	{
		review_again(review, retry_at);
		return false;
	}
	error = eq_try(call_review, &call);
	if (error == NULL)
	{
		if (failures > 0)
			eq_clear_item(what, item, false);
		return true;
	}
	if (is_of_all(error))
		ReThrowError(error);
	retry_at = eq_note_item(
		what, item, review->is_group ? TextDatumGetCString(review->tenant) : NULL,
		error->sqlerrcode, error->message, error->hint);
	now = GetCurrentTimestamp();
	failing_not_before = now + FAILING_SHARE * Min(Max(now - began, 0), LONGEST_US);
	review_again(review, Max(retry_at, failing_not_before));
	return false;
}

/*
 * Tenants have turns, so that one who has many reviews does not keep those of others back:
 * some of each of the next MAX_TURNS tenants after $1, the oldest first.  Those of no tenant,
 * which plain SQL or an earlier version wrote, besides.  One row without review_id if all of
 * these are locked, or there are none.
 */
#define TAKE_REVIEWS(locking)                                                                                                           \
	"WITH RECURSIVE turn AS ("                                                                                                          \
	"(SELECT r.tenant_id, 1 AS n FROM event_queue_internal.job_review r"                                                                \
	" WHERE r.tenant_id > $1 ORDER BY r.tenant_id LIMIT 1)"                                                                             \
	" UNION ALL SELECT x.tenant_id, t.n + 1 FROM turn t, LATERAL ("                                                                     \
	"SELECT r.tenant_id FROM event_queue_internal.job_review r"                                                                         \
	" WHERE r.tenant_id > t.tenant_id ORDER BY r.tenant_id LIMIT 1) x"                                                                  \
	" WHERE t.n < " CppAsString2(                                                                                                       \
		MAX_TURNS) "),"                                                                                                                 \
				   " share AS MATERIALIZED (SELECT count(*) AS tenants, max(tenant_id) AS last,"                                        \
				   " " CppAsString2(                                                                                                    \
					   BATCH) " / greatest(count(*), 1) AS each FROM turn),"                                                            \
							  " chosen AS MATERIALIZED (SELECT x.place FROM turn t, share s, LATERAL ("                                 \
							  "SELECT r.ctid AS place FROM event_queue_internal.job_review r"                                           \
							  " WHERE r.tenant_id = t.tenant_id ORDER BY r.review_id LIMIT s.each" locking                              \
							  ") x"                                                                                                     \
							  " UNION ALL SELECT x.place FROM ("                                                                        \
							  "SELECT r.ctid AS place FROM event_queue_internal.job_review r"                                           \
							  " WHERE r.tenant_id IS NULL ORDER BY r.review_id"                                                         \
							  " LIMIT " CppAsString2(BATCH) locking                                                                     \
		") x),"                                                                                                                         \
		" taken AS (DELETE FROM event_queue_internal.job_review"                                                                        \
		" WHERE ctid = ANY (ARRAY(SELECT place FROM chosen)) RETURNING *)"                                                              \
		" SELECT t.queue_id, t.tenant_id, t.group_key, t.job_id, min(t.review_id),"                                                     \
		" sum(count(t.review_id)) OVER () >= s.each OR s.tenants = " CppAsString2(                                                      \
			MAX_TURNS) ","                                                                                                              \
					   " q.group_retry = 'pass', q.group_concurrency,"                                                                  \
					   " CASE s.tenants WHEN " CppAsString2(                                                                            \
						   MAX_TURNS) " THEN s.last ELSE '' END"                                                                        \
									  " FROM share s LEFT JOIN taken t ON true LEFT JOIN event_queue.queue q USING (queue_id)"          \
									  " GROUP BY t.queue_id, t.tenant_id, t.group_key, t.job_id, q.queue_id, s.each, s.tenants, s.last" \
									  " ORDER BY 5"

/*
 * Does a batch of reviews in a transaction of its own; true if there may be more.  With
 * careful each has a subtransaction, and rows that someone has locked are passed over.
 */
static bool
review_batch(bool careful)
{
	static EqStatement take_reviews = {
		.sql = TAKE_REVIEWS(""), .n_arguments = 1, .types = {TEXTOID}};
	static EqStatement take_free_reviews = {
		.sql = TAKE_REVIEWS(" FOR UPDATE SKIP LOCKED"),
		.n_arguments = 1,
		.types = {TEXTOID}};
	static char turn[EQ_MAX_NAME + 1] = ""; /* whose was the last one; '': of all */
	EqSpi spi;
	EqTable jobs;
	Snapshot snapshot;
	uint64 n;
	static bool any = false; /* in this round of all tenants */
	char next_turn[EQ_MAX_NAME + 1];
	bool more;
	bool isnull;
	HeapTuple first;
	Datum value = CStringGetTextDatum(turn);
	bool all_well = true;
	bool any_well = false;
	bool cut_short = false;
	TimestampTz until = GetCurrentTimestamp() + CAREFUL_TURN_US;
	MemoryContext context;
	MemoryContext caller = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	/* By the index, also if the table was empty when it was analyzed. */
	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	/*
	 * With the settings of the rows' own snapshot: alter_queue's rows can be seen
	 * before its invalidation of what sessions keep of the queues arrives.
	 */
	eq_spi_run(careful ? &take_free_reviews : &take_reviews, &value, NULL);
	first = SPI_tuptable->vals[0];
	(void) SPI_getbinval(first, SPI_tuptable->tupdesc, 5, &isnull);
	n = isnull ? 0 : SPI_processed;
	more = DatumGetBool(SPI_getbinval(first, SPI_tuptable->tupdesc, 6, &isnull));
	strlcpy(next_turn, SPI_getvalue(first, SPI_tuptable->tupdesc, 9),
			sizeof(next_turn));
	any |= n > 0;
	if (next_turn[0] == '\0')
	{
		/* The tenants before may have more; not if all are locked. */
		more |= turn[0] != '\0' && any;
		any = false;
	}
	context = AllocSetContextCreate(CurrentMemoryContext, "event_queue review",
									ALLOCSET_DEFAULT_SIZES);
	if (n > 0)
	{
		SPITupleTable *rows = SPI_tuptable;

		/* Taken after reading the rows, so that it sees the changes that wrote them. */
		CommandCounterIncrement();
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		if (!careful)
			eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
		for (uint64 i = 0; i < n; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(context);
			Review review = read_review(rows->vals[i], rows->tupdesc);

			CHECK_FOR_INTERRUPTS();
			if (!careful)
				do_review(&jobs, snapshot, &review);
			else if (review.is_group && !review.queue_is_here)
				any_well = true;
			else if (GetCurrentTimestamp() > until)
			{
				/* One has taken its time: those before it do not wait for more of its kind. */
				review_again(&review, 0);
				cut_short = true;
			}
			else if (try_review(snapshot, &review))
				any_well = true;
			else
				all_well = false;
			MemoryContextSwitchTo(old);
			MemoryContextReset(context);
		}
		if (!careful)
			eq_table_close(&jobs);
		UnregisterSnapshot(snapshot);
		CommandCounterIncrement();
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	strlcpy(turn, next_turn, sizeof(turn));
	return cut_short || (more && (all_well || any_well));
}

/*
 * For the scheduler; true if there may be more.  Mostly all goes well, and a batch is one
 * piece.  For a while after an error, each review is on its own.
 */
bool
eq_review_jobs(void)
{
	MemoryContext context = CurrentMemoryContext;
	bool more = true;

	if (GetCurrentTimestamp() < careful_until)
		return review_batch(true);
	PG_TRY();
	{
		more = review_batch(false);
	}
	PG_CATCH();
	{
		ErrorData *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		error = eq_abort_transaction();
		RESUME_INTERRUPTS();
		careful_until = GetCurrentTimestamp() + CAREFUL_US;
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	return more;
}
