/*
 * claim.c: leases jobs that are due.
 *
 * Walks over the jobs that are due, in the order of claims (walk.c); in a fair queue
 * each tenant has a lane, and lanes take turns.
 *
 * Each candidate is reserved (reserve.c): one that another claimer has reserved, or
 * that another transaction is changing, is skipped, never waited for.  The lease is written to
 * columns that no index has: a HOT update, which fails if the row has changed
 * since it was seen.  The token of the lease (token.c) carries the TID of
 * the row, so that settling the job needs no index search.
 *
 * A claim of a single job takes one that another claimer has found, if there is one
 * (ring.c), and walks if not.
 *
 * The same walk finds leases that ran out: such a job stalled, and is leased again, or
 * buried after max_stalled times.
 *
 * lease_job calls eq_walk_limit_raise before it may return for any reason but a
 * committed lease, or the ready mark would rise over the job (mark.c, 1).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access/table.h"
#include "common/argument.h"
#include "common/interval.h"
#include "common/json.h"
#include "queue/job_row.h"
#include "queue/queue_slot.h"
#include "queue/walk.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/series.h"
#include "wake/wake.h"

#define MAX_WAIT (INT64CONST(366) * USECS_PER_DAY) /* that counters add up */

/* Tells whether the job has the wanted tenant and name.  Allocates nothing: many may not. */
static bool
is_wanted(const EqClaim *claim, TupleTableSlot *slot)
{
	bool isnull;

	if (claim->tenant &&
		!eq_text_is(slot_getattr(slot, JOB_TENANT, &isnull), claim->tenant))
		return false;
	if (claim->names)
	{
		Datum name = slot_getattr(slot, JOB_NAME, &isnull);

		for (int i = 0; i < claim->n_names; i++)
		{
			if (eq_text_is(name, claim->names[i]))
				return !claim->all_but;
		}
		return claim->all_but;
	}
	return true;
}

static char *
text_or_null(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column - 1]
			   ? NULL
			   : TextDatumGetCString(slot->tts_values[column - 1]);
}

/* Reserves the bucket of the job's key until commit; false if another claimer has it. */
static bool
try_reserve_group_rate(const EqClaim *claim, TupleTableSlot *slot)
{
	if (claim->queue->group_rate_limit == 0)
		return true;
	slot_getallattrs(slot);
	return slot->tts_isnull[JOB_GROUP_KEY - 1] ||
		   eq_try_reserve_group_rate(claim->queue, text_or_null(slot, JOB_TENANT),
									 text_or_null(slot, JOB_GROUP_KEY));
}

/* Copies what claim returns out of the row, before the row is changed. */
static void
fill_job(EqClaimedJob *job, const EqQueue *queue, TupleTableSlot *slot)
{
	Datum *values = slot->tts_values;
	bool *isnull = slot->tts_isnull;

	job->job_id = DatumGetInt64(values[JOB_ID - 1]);
	job->name = TextDatumGetCString(values[JOB_NAME - 1]);
	job->tenant = TextDatumGetCString(values[JOB_TENANT - 1]);
	job->group_key = text_or_null(slot, JOB_GROUP_KEY);
	job->payload = DatumGetJsonbPCopy(values[JOB_PAYLOAD - 1]);
	job->metadata = isnull[JOB_METADATA - 1]
						? eq_empty_object()
						: DatumGetJsonbPCopy(values[JOB_METADATA - 1]);
	job->failures = DatumGetInt32(values[JOB_FAILURES - 1]);
	job->stalled = DatumGetInt32(values[JOB_STALLED - 1]);
	job->max_attempts = isnull[JOB_MAX_ATTEMPTS - 1]
							? queue->max_attempts
							: DatumGetInt32(values[JOB_MAX_ATTEMPTS - 1]);
	job->priority = DatumGetInt16(values[JOB_PRIORITY - 1]);
	job->cancelled = DatumGetBool(values[JOB_CANCEL - 1]);
	job->created_at = DatumGetTimestampTz(values[JOB_CREATED_AT - 1]);
	job->run_at = DatumGetTimestampTz(values[JOB_RUN_AT - 1]);
	job->time_limit = isnull[JOB_TIME_LIMIT - 1] ? 0
												 : eq_interval_us(DatumGetIntervalP(
													   values[JOB_TIME_LIMIT - 1]));
}

/* Values that are the same in all leases of one call. */
typedef struct LeaseTerms
{
	uint8 random[EQ_TOKEN_RANDOM];
	Datum worker;
	int64 length;
} LeaseTerms;

/* Sets the columns that a lease writes. */
static void
fill_lease(TupleTableSlot *slot, EqWalk *walk, const EqClaim *claim,
		   const LeaseTerms *lease, bool was_stalled, EqClaimedJob *job,
		   EqJobEdit *edit)
{
	int64 length = lease->length;

	eq_edit_job(edit, slot);
	fill_job(job, claim->queue, slot);
	eq_make_token(&job->token, lease->random, &walk->root);
	if (job->time_limit > 0)
		length = Min(length, job->time_limit);
	job->leased_until = walk->now + length;
	if (was_stalled)
		job->stalled++;

	eq_edit_set(edit, JOB_STALLED, Int32GetDatum(job->stalled));
	eq_edit_set(edit, JOB_LEASE_TOKEN, UUIDPGetDatum(&job->token));
	eq_edit_set(edit, JOB_LEASED_UNTIL, TimestampTzGetDatum(job->leased_until));
	eq_edit_set(edit, JOB_CLAIMED_AT, TimestampTzGetDatum(walk->now));
	if (claim->session_bound)
		eq_edit_set(edit, JOB_LEASE_PID, Int32GetDatum(MyProcPid));
	else
		eq_edit_set_null(edit, JOB_LEASE_PID);
	eq_edit_set(edit, JOB_LEASED_BY, lease->worker);
	if (DatumGetBool(edit->values[JOB_UNIQUE_UNTIL_CLAIM - 1]))
		eq_edit_set_null(edit, JOB_UNIQUE_KEY);
}

/* Updates counters and the result after the lease is written. */
static void
count_lease(EqWalk *walk, EqClaim *claim, bool was_stalled, const EqClaimedJob *job)
{
	/* A time long ago means "at once": sums of such waits would overflow. */
	int64 wait = Max(walk->now - Max(job->run_at, walk->now - MAX_WAIT), 0);
	EqJobNames names = {claim->queue->queue_id, job->name, strlen(job->name),
						job->tenant, strlen(job->tenant)};

	if (walk->slot && !claim->queue->fair)
		pg_atomic_write_u64(&eq_queue_slot(walk->slot)->last_segment,
							eq_segment(walk->lane, walk->priority));
	claim->n_jobs++;
	if (claim->goes_on && !claim->goes_on(claim, job))
		claim->limit = claim->n_jobs;
	eq_count(claim->queue->queue_id, EQ_COUNT_CLAIMED, 1);
	eq_count(claim->queue->queue_id, EQ_COUNT_WAIT_US, wait);
	eq_count_job(&names, EQ_COUNT_CLAIMED, 1, wait,
				 job->failures == 0 && job->stalled == 0);
	if (was_stalled)
	{
		eq_count(claim->queue->queue_id, EQ_COUNT_STALLED, 1);
		eq_count_job(&names, EQ_COUNT_STALLED, 1, 0, false);
	}
}

/* Buries a job whose lease ran out more often than max_stalled allows, or that was cancelled. */
static void
bury_stalled(EqTable *jobs, TupleTableSlot *slot, Snapshot snapshot, int stalled)
{
	int failures = DatumGetInt32(slot->tts_values[JOB_FAILURES - 1]);
	bool cancelled = DatumGetBool(slot->tts_values[JOB_CANCEL - 1]);
	Jsonb *errors;

	if (cancelled)
		errors = eq_add_error(
			slot, failures + 1, unpack_sql_state(ERRCODE_EQ_JOB_CANCELLED),
			"job was cancelled, and its lease ran out", NULL, NULL);
	else
		errors = eq_add_error(slot, failures + 1, NULL,
							  "job stalled more often than max_stalled allows", NULL,
							  NULL);
	eq_bury(jobs, slot, snapshot, cancelled ? "final" : "stalled", errors, failures,
			stalled);
	if (!slot->tts_isnull[JOB_GROUP_KEY -
						  1]) /* the next job of its group may start */
		eq_review_group(DatumGetInt32(slot->tts_values[JOB_QUEUE - 1]),
						slot->tts_values[JOB_TENANT - 1],
						slot->tts_values[JOB_GROUP_KEY - 1]);
}

/* Postpones a job whose key has no token until then. */
static void
postpone(EqTable *jobs, const EqQueue *queue, TupleTableSlot *slot,
		 Snapshot snapshot, TimestampTz until)
{
	EqJobEdit edit;

	eq_edit_job(&edit, slot);
	eq_edit_set_run_at(&edit, queue, until);
	eq_write_job(jobs, snapshot, &edit);
}

/* Leases a row that is reserved and not locked; false if it has changed. */
static bool
lease_reserved(EqTable *jobs, EqWalk *walk, EqClaim *claim, const LeaseTerms *lease)
{
	EqClaimedJob *job = &claim->jobs[claim->n_jobs];
	EqJobEdit edit;

	Assert(walk->kept); /* the mark stays below it, if this is rolled back */
	fill_lease(walk->row, walk, claim, lease, false, job, &edit);
	if (!eq_write_job_if_unchanged(jobs, walk->snapshot, &edit, true))
		return false;
	count_lease(walk, claim, false, job);
	return true;
}

/*
 * Leases, buries or postpones a row that is locked first: one that stalled, one
 * whose key has a rate, one that could not be reserved.
 */
static bool
lease_locked(EqTable *jobs, EqWalk *walk, EqClaim *claim, const LeaseTerms *lease,
			 bool stalled)
{
	EqClaimedJob *job = &claim->jobs[claim->n_jobs];
	Snapshot snapshot = walk->snapshot;
	TupleTableSlot *locked = table_slot_create(jobs->rel, NULL);
	TM_FailureData failure;
	TimestampTz until = 0;
	int stalls;
	bool taken = false;

	Assert(walk->kept);
	if (table_tuple_lock(jobs->rel, &walk->row->tts_tid, snapshot, locked,
						 GetCurrentCommandId(false), LockTupleNoKeyExclusive,
						 LockWaitSkip, 0, &failure) != TM_Ok)
	{
		ExecDropSingleTupleTableSlot(locked);
		return false; /* someone else has it */
	}

	slot_getallattrs(locked);
	stalls = DatumGetInt32(locked->tts_values[JOB_STALLED - 1]) + (stalled ? 1 : 0);
	if (stalled && (stalls > claim->queue->max_stalled ||
					DatumGetBool(locked->tts_values[JOB_CANCEL - 1])))
		bury_stalled(jobs, locked, snapshot, stalls);
	else
	{
		if (claim->queue->group_rate_limit > 0 &&
			!locked->tts_isnull[JOB_GROUP_KEY - 1])
			until = eq_use_group_rate(claim->queue, text_or_null(locked, JOB_TENANT),
									  text_or_null(locked, JOB_GROUP_KEY));
		if (until != 0)
			postpone(jobs, claim->queue, locked, snapshot, until);
		else
		{
			EqJobEdit edit;

			fill_lease(locked, walk, claim, lease, stalled, job, &edit);
			if (stalled)
			{
				eq_edit_set(
					&edit, JOB_ERRORS,
					JsonbPGetDatum(eq_add_error(locked, job->failures + 1, NULL,
												"lease ran out", NULL, NULL)));
			}
			eq_write_job(jobs, snapshot, &edit);
			count_lease(walk, claim, stalled, job);
			taken = true;
		}
	}
	ExecDropSingleTupleTableSlot(locked);
	return taken;
}

/* Tries to lease the job that the walk is at; true if it did. */
static bool
lease_job(EqTable *jobs, EqWalk *walk, EqClaim *claim, const LeaseTerms *lease)
{
	EqReservation reservation;
	bool stalled;

	if (eq_is_leased(walk->row, walk->now, &stalled))
		return false;
	eq_walk_limit_raise(walk);
	if (!is_wanted(claim, walk->row))
		return false;
	reservation = eq_reserve_row(&walk->root);
	if (reservation == EQ_RESERVED_BY_OTHER ||
		!try_reserve_group_rate(claim, walk->row))
		return false;
	eq_forbid_mark_raise();
	if (reservation == EQ_NO_ROOM || stalled || claim->queue->group_rate_limit > 0)
		return lease_locked(jobs, walk, claim, lease, stalled);
	return !eq_row_is_busy(walk->row) && lease_reserved(jobs, walk, claim, lease);
}

/* Checks that the row of the ring's candidate is due, and of the ring's segment. */
static bool
is_of_segment(EqWalk *walk, uint64 segment)
{
	TupleTableSlot *row = walk->row;

	slot_getallattrs(row);
	walk->lane = DatumGetInt32(row->tts_values[JOB_LANE - 1]);
	walk->priority = DatumGetInt16(row->tts_values[JOB_PRIORITY - 1]);
	return DatumGetInt32(row->tts_values[JOB_QUEUE - 1]) == walk->queue->queue_id &&
		   eq_segment(walk->lane, walk->priority) == segment &&
		   DatumGetInt16(row->tts_values[JOB_BLOCKED - 1]) == JOB_NOT_BLOCKED &&
		   DatumGetTimestampTz(row->tts_values[JOB_RUN_AT - 1]) <= walk->now;
}

/*
 * Tries to lease one of the jobs that another claimer has found (ring.c).  If there
 * is none, says what to do instead, and from where to go on.
 */
static EqRingAnswer
lease_from_ring(EqTable *jobs, EqWalk *walk, EqClaim *claim, const LeaseTerms *lease,
				uint64 *segment, EqPlace *end)
{
	TupleTableSlot *slot = table_slot_create(jobs->rel, NULL);
	EqRingAnswer answer;

	walk->row = slot;
	do
	{
		CHECK_FOR_INTERRUPTS();
		answer = eq_ring_take(walk->slot, walk->ring_generation, walk->now,
							  &walk->root, segment, end);
		if (answer == EQ_RING_CANDIDATE &&
			eq_table_fetch(jobs, &walk->root, walk->snapshot, slot) &&
			is_of_segment(walk, *segment))
			(void) lease_job(jobs, walk, claim, lease);
	} while (answer == EQ_RING_CANDIDATE && claim->n_jobs == 0);
	ExecDropSingleTupleTableSlot(slot);
	return answer;
}

/* Fills the ring with the jobs that follow in this segment, for other claimers. */
static void
fill_ring(EqWalk *walk, bool goes_on)
{
	ItemPointerData candidates[EQ_RING_SIZE];
	int wanted = eq_ring_wanted(walk->slot, walk->now);
	EqPlace end = {0};
	int n = 0;

	while (walk->in_segment && n < wanted && eq_walk_next_entry(walk))
	{
		candidates[n++] = walk->scan.root;
		end = walk->place;
	}
	eq_ring_fill(walk->slot, walk->ring_generation, walk->now, goes_on,
				 n > 0 ? eq_segment(walk->lane, walk->priority) : 0, end, candidates,
				 n);
}

/* Claims one job, by the ring if possible; else walks, and fills the ring. */
static void
lease_single(EqTable *jobs, EqWalk *walk, EqClaim *claim, const LeaseTerms *lease)
{
	uint64 segment;
	EqPlace end;
	EqRingAnswer answer = lease_from_ring(jobs, walk, claim, lease, &segment, &end);

	if (claim->n_jobs > 0)
		return;
	eq_walk_open(walk, jobs->rel);
	if (answer == EQ_RING_GO_ON)
	{
		bool raises = walk->raises;

		/* The walk skips entries between the mark and here, so it can't raise the mark. */
		walk->raises = false;
		walk->lane = (int32) (segment >> 8);
		walk->priority = (int32) (segment & 0xff);
		walk->begin.run_at = end.run_at;
		walk->begin.job_id = end.job_id + 1;
		eq_walk_start_segment(walk);
		while (claim->n_jobs == 0 && eq_walk_next_entry(walk))
		{
			walk->root = walk->scan.root;
			if (eq_scan_fetch(&walk->scan))
				(void) lease_job(jobs, walk, claim, lease);
		}
		if (claim->n_jobs > 0)
		{
			fill_ring(walk, true);
			return;
		}
		walk->in_segment = false;
		walk->raises = raises;
	}
	while (claim->n_jobs == 0 && eq_walk_next(walk))
		(void) lease_job(jobs, walk, claim, lease);
	if (answer != EQ_RING_EMPTY)
		fill_ring(walk, false);
}

/*
 * Leases in rounds from the lane after the one that was last: each has a turn, which
 * is one job, or of a large claim a tenth.
 */
static void
lease_fairly(EqTable *jobs, EqWalk *walk, EqClaim *claim, const LeaseTerms *lease)
{
	int32 start = 0;
	int turn = Max(1, claim->limit / 10);
	int taken;

	if (walk->slot)
		start = (pg_atomic_read_u32(&eq_queue_slot(walk->slot)->last_lane) + 1) &
				PG_INT32_MAX;
	do
	{
		taken = 0;
		for (int half = 0; half < 2 && claim->n_jobs < claim->limit; half++)
		{
			int32 lane = -1;
			int in_turn = 0;

			if (half == 1 && start == 0)
				break;
			eq_walk_lanes(walk, half == 0 ? start : 0,
						  half == 0 ? PG_INT32_MAX : start - 1);
			while (claim->n_jobs < claim->limit && eq_walk_next(walk))
			{
				if (walk->lane != lane)
					in_turn = 0;
				lane = walk->lane;
				if (!lease_job(jobs, walk, claim, lease))
					continue;
				taken++;
				if (walk->slot)
					pg_atomic_write_u32(&eq_queue_slot(walk->slot)->last_lane, lane);
				if (++in_turn < turn)
					continue;
				if (lane == PG_INT32_MAX)
					break;
				eq_walk_lanes(walk, lane + 1, walk->end_lane);
			}
		}
	} while (taken > 0 && claim->n_jobs < claim->limit);
}

/*
 * Tells whether the ring will do: if any job of the queue is wanted, in the order of
 * claims, and this transaction has enqueued none, which the ring would not have.
 */
static bool
can_use_ring(const EqClaim *claim)
{
	return claim->names == NULL && claim->tenant == NULL && !claim->queue->fair &&
		   claim->queue->group_rate_limit == 0 && !eq_lowers_marks_at_commit();
}

/*
 * Leases up to claim->limit jobs into claim->jobs, in the caller's memory.
 */
void
eq_claim(EqClaim *claim)
{
	EqTable jobs;
	EqWalk walk;
	LeaseTerms lease;
	int wanted = claim->limit; /* which goes down meanwhile */

	claim->n_jobs = 0;
	claim->jobs = NULL;
	claim->retry_at = 0;
	eq_require_active();
	if (claim->queue->paused)
		return;
	claim->retry_at = eq_queue_held_until(claim->queue);
	if (claim->retry_at != 0)
		return;
	eq_weak_writes_begin();
	if (eq_queue_is_limited(claim->queue))
		claim->limit = eq_reserve_claims(claim->queue, claim->limit,
										 &claim->retry_at);
	if (claim->limit == 0)
	{
		claim->limit = wanted;
		eq_weak_writes_end();
		return;
	}
	claim->jobs = palloc(claim->limit * sizeof(EqClaimedJob));
	eq_draw_token_random(lease.random);
	lease.worker = CStringGetTextDatum(claim->worker);
	lease.length = claim->lease ? claim->lease : claim->queue->lease;

	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	eq_walk_prepare(&walk, claim->queue, true);
	if (claim->limit == 1 && walk.slot && can_use_ring(claim))
		lease_single(&jobs, &walk, claim, &lease);
	else
	{
		eq_walk_open(&walk, jobs.rel);
		if (claim->queue->fair)
			lease_fairly(&jobs, &walk, claim, &lease);
		while (!claim->queue->fair && claim->n_jobs < claim->limit &&
			   eq_walk_next(&walk))
			(void) lease_job(&jobs, &walk, claim, &lease);
	}
	eq_walk_end(&walk);
	eq_table_close(&jobs);
	CommandCounterIncrement();
	claim->limit = wanted;

	if (eq_queue_is_limited(claim->queue))
		eq_use_claims(claim->queue, claim->jobs, claim->n_jobs);
	if (claim->n_jobs > 0 && claim->session_bound)
		eq_bind_to_session(claim->jobs, claim->n_jobs);
	eq_weak_writes_end();
}
