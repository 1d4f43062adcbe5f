/*
 * claim.c: leases jobs that are due.
 *
 * Walks over the jobs that are due, in the order of claims (walk.c); in a fair queue
 * each tenant has a lane, and lanes take turns.
 *
 * Each candidate is reserved (reserve.c): one that another claimer has in hand, or
 * that someone is changing, is skipped, never waited for.  The lease is written to
 * columns that no index has: a HOT update, which fails if the row has changed
 * since it was seen.  The token of the lease carries the place of the row, so that
 * settling the job needs no index search.
 *
 * Who claims a single job takes one that another claimer has found, if there is one
 * (ring.c), and walks if not.
 *
 * A lease that ran out is met by the same walk: the job stalled, and is leased
 * again, or buried after max_stalled times.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access/table.h"
#include "queue/walk.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_claim_sql);
PG_FUNCTION_INFO_V1(eq_complete_many_and_claim);
PG_FUNCTION_INFO_V1(eq_complete_and_claim);

#define MAX_CLAIM	 10000
#define TOKEN_RANDOM 10 /* bytes */

static bool
is_wanted(const EqClaim *claim, TupleTableSlot *slot)
{
	bool isnull;

	if (claim->tenant &&
		strcmp(TextDatumGetCString(slot_getattr(slot, JOB_TENANT, &isnull)),
			   claim->tenant) != 0)
		return false;
	if (claim->names)
	{
		char *name = TextDatumGetCString(slot_getattr(slot, JOB_NAME, &isnull));

		for (int i = 0; i < claim->n_names; i++)
		{
			if (strcmp(claim->names[i], name) == 0)
				return true;
		}
		return false;
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

/* Is another claimer about to take a token of the job's key? */
static bool
is_rate_busy(const EqClaim *claim, TupleTableSlot *slot)
{
	if (claim->queue->group_rate_limit == 0)
		return false;
	slot_getallattrs(slot);
	return !slot->tts_isnull[JOB_GROUP_KEY - 1] &&
		   eq_group_rate_is_busy(claim->queue, text_or_null(slot, JOB_TENANT),
								 text_or_null(slot, JOB_GROUP_KEY));
}

/* Copies what the worker is told out of the row, before the row is changed. */
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
	job->created_at = DatumGetTimestampTz(values[JOB_CREATED_AT - 1]);
	job->run_at = DatumGetTimestampTz(values[JOB_RUN_AT - 1]);
	job->time_limit = isnull[JOB_TIME_LIMIT - 1] ? 0
												 : eq_interval_us(DatumGetIntervalP(
													   values[JOB_TIME_LIMIT - 1]));
}

/*
 * A token is used once: 74 random bits of the claim, and the place of the row
 * (block and offset) to which the index entries point.
 */
static void
make_token(pg_uuid_t *token, const uint8 *random, ItemPointer root)
{
	BlockNumber block = ItemPointerGetBlockNumber(root);
	OffsetNumber offset = ItemPointerGetOffsetNumber(root);

	memcpy(token->data, &block, 4);
	memcpy(token->data + 4, &offset, 2);
	memcpy(token->data + 6, random, TOKEN_RANDOM);
	token->data[6] = 0x80 | (token->data[6] & 0x0f);
	token->data[8] = 0x80 | (token->data[8] & 0x3f);
}

void
eq_token_place(const pg_uuid_t *token, ItemPointer root)
{
	BlockNumber block;
	OffsetNumber offset;

	memcpy(&block, token->data, 4);
	memcpy(&offset, token->data + 4, 2);
	ItemPointerSet(root, block, offset);
}

/* What all leases of one call share. */
typedef struct Lease
{
	uint8 random[TOKEN_RANDOM];
	Datum worker;
	int64 length;
} Lease;

/* Random bytes for a lease, of which many are drawn at once: each draw is dear. */
static void
draw_random(uint8 *random)
{
	static uint8 pool[64 * TOKEN_RANDOM];
	static int used = sizeof(pool);

	if (used == sizeof(pool))
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
							errmsg("could not generate a lease token")));
		used = 0;
	}
	memcpy(random, pool + used, TOKEN_RANDOM);
	used += TOKEN_RANDOM;
}

/* The columns that a lease writes. */
static void
fill_lease(TupleTableSlot *slot, EqWalk *walk, const EqClaim *claim,
		   const Lease *lease, bool was_stalled, EqClaimedJob *job, Datum *values,
		   bool *nulls)
{
	int64 length = lease->length;

	fill_job(job, claim->queue, slot);
	make_token(&job->token, lease->random, &walk->root);
	if (job->time_limit > 0)
		length = Min(length, job->time_limit);
	job->leased_until = walk->now + length;
	if (was_stalled)
		job->stalled++;

	memcpy(values, slot->tts_values, JOB_COLUMNS * sizeof(Datum));
	memcpy(nulls, slot->tts_isnull, JOB_COLUMNS * sizeof(bool));
	values[JOB_STALLED - 1] = Int32GetDatum(job->stalled);
	values[JOB_LEASE_TOKEN - 1] = UUIDPGetDatum(&job->token);
	nulls[JOB_LEASE_TOKEN - 1] = false;
	values[JOB_LEASED_UNTIL - 1] = TimestampTzGetDatum(job->leased_until);
	nulls[JOB_LEASED_UNTIL - 1] = false;
	values[JOB_CLAIMED_AT - 1] = TimestampTzGetDatum(walk->now);
	nulls[JOB_CLAIMED_AT - 1] = false;
	values[JOB_LEASE_PID - 1] = Int32GetDatum(MyProcPid);
	nulls[JOB_LEASE_PID - 1] = !claim->session_bound;
	values[JOB_LEASED_BY - 1] = lease->worker;
	nulls[JOB_LEASED_BY - 1] = false;
	if (DatumGetBool(values[JOB_UNIQUE_UNTIL_CLAIM - 1]))
		nulls[JOB_UNIQUE_KEY - 1] = true;
}

/* It is ours. */
static void
count_lease(EqWalk *walk, EqClaim *claim, bool was_stalled, const EqClaimedJob *job)
{
	if (walk->slot && !claim->queue->fair)
		pg_atomic_write_u64(&walk->slot->last_segment,
							eq_segment(walk->lane, walk->priority));
	claim->n_jobs++;
	eq_count(claim->queue->queue_id, EQ_COUNT_CLAIMED, 1);
	if (was_stalled)
		eq_count(claim->queue->queue_id, EQ_COUNT_STALLED, 1);
	eq_count(claim->queue->queue_id, EQ_COUNT_WAIT_US,
			 Max(walk->now - job->run_at, 0));
}

/* The lease ran out once too often. */
static void
bury_stalled(EqTable *jobs, TupleTableSlot *slot, Snapshot snapshot, int stalled)
{
	int failures = DatumGetInt32(slot->tts_values[JOB_FAILURES - 1]);
	Jsonb *errors;

	errors = eq_add_error(slot, failures + 1, NULL,
						  "job stalled more often than max_stalled allows", NULL);
	eq_bury(jobs, slot, snapshot, "stalled", errors, failures, stalled);
	if (!slot->tts_isnull[JOB_GROUP_KEY - 1]) /* the next one of its group may go */
		eq_review_group(DatumGetInt32(slot->tts_values[JOB_QUEUE - 1]),
						slot->tts_values[JOB_TENANT - 1],
						slot->tts_values[JOB_GROUP_KEY - 1]);
}

/* The job's key was claimed too often: not before this time. */
static void
postpone(EqTable *jobs, TupleTableSlot *slot, Snapshot snapshot, TimestampTz until)
{
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];

	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(nulls, slot->tts_isnull, sizeof(nulls));
	values[JOB_RUN_AT - 1] = TimestampTzGetDatum(until);
	if (DatumGetInt32(values[JOB_LANE - 1]) != 0)
		values[JOB_LANE - 1] = Int32GetDatum(0); /* of a fair queue: not due */
	eq_table_update(jobs, slot, snapshot, values, nulls);
	eq_wake_queue(DatumGetInt32(values[JOB_QUEUE - 1]));
}

/* Leases a row that is reserved and not locked; false if it has changed. */
static bool
lease_reserved(EqTable *jobs, EqWalk *walk, EqClaim *claim, const Lease *lease)
{
	EqClaimedJob *job = &claim->jobs[claim->n_jobs];
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];

	slot_getallattrs(walk->row);
	fill_lease(walk->row, walk, claim, lease, false, job, values, nulls);
	if (!eq_table_update_unchanged(jobs, walk->row, walk->snapshot, values, nulls))
		return false;
	count_lease(walk, claim, false, job);
	return true;
}

/*
 * Leases, buries or postpones a row that is locked first: one that stalled, one
 * whose key has a rate, one that could not be reserved.
 */
static bool
lease_locked(EqTable *jobs, EqWalk *walk, EqClaim *claim, const Lease *lease,
			 bool stalled)
{
	EqClaimedJob *job = &claim->jobs[claim->n_jobs];
	Snapshot snapshot = walk->snapshot;
	TupleTableSlot *locked = table_slot_create(jobs->rel, NULL);
	TM_FailureData failure;
	TimestampTz until = 0;
	int stalls;
	bool taken = false;

	if (table_tuple_lock(jobs->rel, &walk->row->tts_tid, snapshot, locked,
						 GetCurrentCommandId(false), LockTupleNoKeyExclusive,
						 LockWaitSkip, 0, &failure) != TM_Ok)
	{
		ExecDropSingleTupleTableSlot(locked);
		return false; /* someone else has it */
	}

	slot_getallattrs(locked);
	stalls = DatumGetInt32(locked->tts_values[JOB_STALLED - 1]) + (stalled ? 1 : 0);
	if (stalled && stalls > claim->queue->max_stalled)
		bury_stalled(jobs, locked, snapshot, stalls);
	else
	{
		if (claim->queue->group_rate_limit > 0 &&
			!locked->tts_isnull[JOB_GROUP_KEY - 1])
			until = eq_use_group_rate(claim->queue, text_or_null(locked, JOB_TENANT),
									  text_or_null(locked, JOB_GROUP_KEY));
		if (until != 0)
			postpone(jobs, locked, snapshot, until);
		else
		{
			Datum values[JOB_COLUMNS];
			bool nulls[JOB_COLUMNS];

			fill_lease(locked, walk, claim, lease, stalled, job, values, nulls);
			if (stalled)
			{
				values[JOB_ERRORS - 1] = JsonbPGetDatum(eq_add_error(
					locked, job->failures + 1, NULL, "lease ran out", NULL));
				nulls[JOB_ERRORS - 1] = false;
			}
			eq_table_update(jobs, locked, snapshot, values, nulls);
			count_lease(walk, claim, stalled, job);
			taken = true;
		}
	}
	ExecDropSingleTupleTableSlot(locked);
	return taken;
}

/* Tries to lease the job that the walk is at; true if it did. */
static bool
take_job(EqTable *jobs, EqWalk *walk, EqClaim *claim, const Lease *lease)
{
	EqReservation reservation;
	bool stalled;

	if (eq_is_leased(walk->row, walk->now, &stalled))
		return false;
	eq_walk_keep(walk);
	if (!is_wanted(claim, walk->row))
		return false;
	reservation = eq_reserve_row(&walk->root);
	if (reservation == EQ_RESERVED_BY_OTHER || is_rate_busy(claim, walk->row))
		return false;
	eq_hold_marks();
	if (reservation == EQ_NO_ROOM || stalled || claim->queue->group_rate_limit > 0)
		return lease_locked(jobs, walk, claim, lease, stalled);
	return !eq_row_is_busy(walk->row) && lease_reserved(jobs, walk, claim, lease);
}

/* Is the row that a candidate of the ring led to what the ring was made of? */
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
take_from_ring(EqTable *jobs, EqWalk *walk, EqClaim *claim, const Lease *lease,
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
			(void) take_job(jobs, walk, claim, lease);
	} while (answer == EQ_RING_CANDIDATE && claim->n_jobs == 0);
	ExecDropSingleTupleTableSlot(slot);
	return answer;
}

/* Leaves the jobs that follow in this segment to other claimers. */
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
take_single(EqTable *jobs, EqWalk *walk, EqClaim *claim, const Lease *lease)
{
	uint64 segment;
	EqPlace end;
	EqRingAnswer answer = take_from_ring(jobs, walk, claim, lease, &segment, &end);

	if (claim->n_jobs > 0)
		return;
	eq_walk_open(walk, jobs->rel);
	if (answer == EQ_RING_GO_ON)
	{
		bool raises = walk->raises;

		/* What lies between the mark and here is not looked at. */
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
				(void) take_job(jobs, walk, claim, lease);
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
		(void) take_job(jobs, walk, claim, lease);
	if (answer != EQ_RING_EMPTY)
		fill_ring(walk, false);
}

/*
 * In rounds from the lane after the one that was last: each has a turn, which is
 * one job, or of a large claim a tenth.
 */
static void
take_fairly(EqTable *jobs, EqWalk *walk, EqClaim *claim, int limit,
			const Lease *lease)
{
	int32 start = 0;
	int turn = Max(1, limit / 10);
	int taken;

	if (walk->slot)
		start = (pg_atomic_read_u32(&walk->slot->last_lane) + 1) & PG_INT32_MAX;
	do
	{
		taken = 0;
		for (int half = 0; half < 2 && claim->n_jobs < limit; half++)
		{
			int32 lane = -1;
			int in_turn = 0;

			if (half == 1 && start == 0)
				break;
			eq_walk_lanes(walk, half == 0 ? start : 0,
						  half == 0 ? PG_INT32_MAX : start - 1);
			while (claim->n_jobs < limit && eq_walk_next(walk))
			{
				if (walk->lane != lane)
					in_turn = 0;
				lane = walk->lane;
				if (!take_job(jobs, walk, claim, lease))
					continue;
				taken++;
				if (walk->slot)
					pg_atomic_write_u32(&walk->slot->last_lane, lane);
				if (++in_turn < turn)
					continue;
				if (lane == PG_INT32_MAX)
					break;
				eq_walk_lanes(walk, lane + 1, walk->end_lane);
			}
		}
	} while (taken > 0 && claim->n_jobs < limit);
}

/*
 * Any job of the queue will do, and the ring has them in the order of claims, but for
 * those that this transaction itself has enqueued.
 */
static bool
can_use_ring(const EqClaim *claim)
{
	return claim->names == NULL && claim->tenant == NULL && !claim->queue->fair &&
		   claim->queue->group_rate_limit == 0 && !eq_has_noted_ready();
}

/*
 * Leases up to claim->limit jobs into claim->jobs, in the caller's memory.
 */
void
eq_claim(EqClaim *claim)
{
	EqTable jobs;
	EqWalk walk;
	Lease lease;
	int limit = claim->limit;

	claim->n_jobs = 0;
	claim->jobs = NULL;
	claim->retry_at = 0;
	eq_require_active();
	if (claim->queue->paused)
		return;
	eq_weak_writes_begin();
	if (eq_queue_is_limited(claim->queue))
		limit = eq_reserve_claims(claim->queue, limit, &claim->retry_at);
	if (limit == 0)
	{
		eq_weak_writes_end();
		return;
	}
	claim->jobs = palloc(limit * sizeof(EqClaimedJob));
	draw_random(lease.random);
	lease.worker = CStringGetTextDatum(claim->worker);
	lease.length = claim->lease ? claim->lease : claim->queue->lease;

	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	eq_walk_prepare(&walk, claim->queue, true);
	if (limit == 1 && walk.slot && can_use_ring(claim))
		take_single(&jobs, &walk, claim, &lease);
	else
	{
		eq_walk_open(&walk, jobs.rel);
		if (claim->queue->fair)
			take_fairly(&jobs, &walk, claim, limit, &lease);
		while (!claim->queue->fair && claim->n_jobs < limit && eq_walk_next(&walk))
			(void) take_job(&jobs, &walk, claim, &lease);
	}
	eq_walk_end(&walk);
	eq_table_close(&jobs);
	CommandCounterIncrement();

	if (eq_queue_is_limited(claim->queue))
		eq_use_claims(claim->queue, claim->jobs, claim->n_jobs);
	if (claim->n_jobs > 0 && claim->session_bound)
		eq_bind_to_session(claim->jobs, claim->n_jobs);
	eq_weak_writes_end();
}

#define CLAIMED_JOB_COLUMNS 16

/* The columns of the composite type claimed_job. */
static void
fill_claimed_job(const EqQueue *queue, const EqClaimedJob *job, Datum *values,
				 bool *nulls)
{
	int i = 0;

	memset(nulls, 0, CLAIMED_JOB_COLUMNS * sizeof(bool));
	values[i++] = Int64GetDatum(job->job_id);
	values[i++] = UUIDPGetDatum(&job->token);
	values[i++] = CStringGetTextDatum(queue->name);
	values[i++] = CStringGetTextDatum(job->name);
	values[i++] = CStringGetTextDatum(job->tenant);
	values[i++] = JsonbPGetDatum(job->payload);
	values[i++] = JsonbPGetDatum(job->metadata);
	values[i++] = Int32GetDatum(job->failures + 1);
	values[i++] = Int32GetDatum(job->max_attempts);
	values[i++] = Int32GetDatum(job->stalled);
	values[i++] = Int32GetDatum(job->priority);
	values[i++] = TimestampTzGetDatum(job->created_at);
	values[i++] = TimestampTzGetDatum(job->run_at);
	values[i++] = TimestampTzGetDatum(job->leased_until);
	nulls[i] = job->group_key == NULL;
	values[i++] = job->group_key ? CStringGetTextDatum(job->group_key) : (Datum) 0;
	nulls[i] = job->time_limit == 0;
	values[i++] = Int32GetDatum((int32) Max(job->time_limit / 1000, 1));
	Assert(i == CLAIMED_JOB_COLUMNS);
}

/* A job as the composite type claimed_job. */
Datum
eq_claimed_job_datum(const EqQueue *queue, const EqClaimedJob *job, TupleDesc desc)
{
	Datum values[CLAIMED_JOB_COLUMNS];
	bool nulls[CLAIMED_JOB_COLUMNS];

	fill_claimed_job(queue, job, values, nulls);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/*
 * The arguments of claim from "queue" on, which begin at first.
 */
static void
claim_arguments(FunctionCallInfo fcinfo, int first, EqClaim *claim)
{
	memset(claim, 0, sizeof(EqClaim));
	claim->queue = eq_get_queue(
		PG_ARGISNULL(first) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(first)));
	claim->limit = PG_ARGISNULL(first + 1) ? 1 : PG_GETARG_INT32(first + 1);
	eq_check_claim_limit(claim->limit);
	claim->worker = eq_worker_argument(fcinfo, first + 2);
	claim->lease = eq_lease_argument(fcinfo, first + 3);
	if (!PG_ARGISNULL(first + 4))
	{
		Datum *names;
		bool *nulls;
		int n;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(first + 4), TEXTOID, -1, false,
						  TYPALIGN_INT, &names, &nulls, &n);
		claim->names = palloc0(Max(n, 1) * sizeof(char *));
		for (int i = 0; i < n; i++)
		{
			if (!nulls[i])
				claim->names[claim->n_names++] = TextDatumGetCString(names[i]);
		}
	}
	claim->tenant = eq_claim_tenant(fcinfo, first + 5);
	claim->session_bound = !PG_ARGISNULL(first + 6) && PG_GETARG_BOOL(first + 6);
}

void
eq_check_claim_limit(int limit)
{
	if (limit < 1 || limit > MAX_CLAIM)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("max_jobs must be between 1 and %d", MAX_CLAIM)));
}

/* Who holds the lease; by default the session. */
const char *
eq_worker_argument(FunctionCallInfo fcinfo, int argno)
{
	char *worker;

	if (PG_ARGISNULL(argno))
	{
		const char *name = application_name ? application_name : "";
		int length = strlen(name);

		worker = palloc(length + 14);
		memcpy(worker, name, length);
		worker[length] = ' ';
		pg_ltoa(MyProcPid, worker + length + 1);
		return worker;
	}
	worker = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	eq_check_name("worker", worker, EQ_MAX_NAME);
	return worker;
}

/* Microseconds; 0: the queue's. */
int64
eq_lease_argument(FunctionCallInfo fcinfo, int argno)
{
	int64 lease;

	if (PG_ARGISNULL(argno))
		return 0;
	lease = eq_interval_us(PG_GETARG_INTERVAL_P(argno));
	if (lease <= 0 || lease > 7 * USECS_PER_DAY)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
						errmsg("lease must be positive and at most 7 days")));
	return lease;
}

/* Whose jobs may be claimed; NULL: everyone's. */
const char *
eq_claim_tenant(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return eq_confined_tenant();
	return eq_resolve_tenant(text_to_cstring(PG_GETARG_TEXT_PP(argno)));
}

/* The end of the functions that return jobs. */
static Datum
claim_and_return(FunctionCallInfo fcinfo, EqClaim *claim)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo,
						rsinfo && IsA(rsinfo, ReturnSetInfo) && rsinfo->expectedDesc
							? MAT_SRF_USE_EXPECTED_DESC
							: 0);
	eq_claim(claim);
	for (int i = 0; i < claim->n_jobs; i++)
	{
		Datum values[CLAIMED_JOB_COLUMNS];
		bool nulls[CLAIMED_JOB_COLUMNS];

		fill_claimed_job(claim->queue, &claim->jobs[i], values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
eq_claim_sql(PG_FUNCTION_ARGS)
{
	EqClaim claim;

	claim_arguments(fcinfo, 0, &claim);
	return claim_and_return(fcinfo, &claim);
}

Datum
eq_complete_and_claim(PG_FUNCTION_ARGS)
{
	EqClaim claim;

	claim_arguments(fcinfo, 2, &claim);
	if (!PG_ARGISNULL(0))
	{
		Jsonb *result = PG_ARGISNULL(9) ? NULL : PG_GETARG_JSONB_P(9);

		if (result)
			eq_check_payload("job result", result);
		if (PG_ARGISNULL(1))
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
							errmsg("job_id and lease_token must not be null")));
		eq_complete(PG_GETARG_INT64(0), PG_GETARG_UUID_P(1), result);
	}
	return claim_and_return(fcinfo, &claim);
}

Datum
eq_complete_many_and_claim(PG_FUNCTION_ARGS)
{
	EqClaim claim;

	claim_arguments(fcinfo, 2, &claim);
	(void) eq_complete_all(fcinfo, 9);
	return claim_and_return(fcinfo, &claim);
}
