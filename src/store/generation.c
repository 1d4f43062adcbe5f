/*
 * generation.c: begins a new generation of positions when the store was restored.
 *
 * After a restore to an earlier point, or a failover to a standby that lagged, the store
 * has lost events that an outside consumer may have seen.  Their positions must not be
 * reused, or the consumer would skip new events there.  So the upper bits of a position are
 * the generation: whenever the database has another identity (system identifier, timeline,
 * OID) than the stored one, positions continue at the start of the next generation, above
 * all earlier ones.  A position of an older generation after which that generation has no
 * event is lost: reading from it is an error that says where to continue.
 *
 * Ids of jobs go on above the same number: those of lost jobs are idempotency keys and
 * webhook-ids at others, who would take a new job for one that is done.
 *
 * The identity is stored as the value of the sequence event_generation: sequences are
 * written at once and outside of the transaction, as positions must be.  A copy of a disk
 * has no new timeline: new_generation() does by hand what can't be detected.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "store/store.h"
#include "table/table.h"

PG_FUNCTION_INFO_V1(eq_generation_sql);

/* This database's identity, as a positive number. */
static int64
current_identity(void)
{
	uint64 identity[3] = {GetSystemIdentifier(), GetWALInsertionTimeLine(),
						  MyDatabaseId};

	return (int64) (DatumGetUInt64(hash_any_extended((unsigned char *) identity,
													 sizeof(identity), 0)) &
					PG_INT64_MAX >> 1) +
		   1;
}

/* The stored identity; 0 if there is none yet. */
static int64
stored_identity(void)
{
	return eq_query_int64("SELECT CASE WHEN is_called THEN last_value ELSE 0 END"
						  " FROM event_queue_internal.event_generation",
						  0);
}

/*
 * Called under the positions' lock, with the next position that the sequence
 * would give: returns the one to go on with.
 */
int64
eq_enter_generation(int64 next_position)
{
	int64 stored = stored_identity();
	int64 identity = current_identity();

	if (stored == identity)
		return next_position;
	if (stored == 0)
	{
		eq_set_sequence(EQ_EVENT_GENERATION, identity, true);
		return next_position;
	}
	return eq_new_generation(next_position);
}

/* The next job gets an id above all that were given in earlier generations. */
void
eq_raise_job_ids(int64 generation)
{
	int64 last = eq_query_int64("SELECT last_value FROM event_queue.job_job_id_seq",
								0);

	if (last < generation << EQ_GENERATION_BITS)
		eq_set_sequence(EQ_IDS_OF_JOBS, generation << EQ_GENERATION_BITS, true);
}

/* Likewise: begins a generation whatever the identity, unless no event was ever. */
int64
eq_new_generation(int64 next_position)
{
	if (next_position > 1 || stored_identity() != 0)
	{
		int64 generation = Max((next_position >> EQ_GENERATION_BITS) + 1,
							   (int64) GetWALInsertionTimeLine() - 1);

		next_position = (generation << EQ_GENERATION_BITS) + 1;
		eq_raise_job_ids(generation);
		ereport(LOG, (errmsg("the event store enters generation " INT64_FORMAT
							 ": the server was restored, copied or promoted",
							 generation)));
	}
	eq_set_sequence(EQ_EVENT_POSITION, next_position, false);
	eq_set_sequence(EQ_EVENT_GENERATION, current_identity(), true);
	return next_position;
}

/*
 * Does the position lie in a table by time that was archived?  What was there can't be
 * told any more: it is not taken for lost.
 */
static bool
was_archived(int64 position)
{
	return eq_query_int64("SELECT count(*) FROM event_queue_internal.event_partition"
						  " WHERE archived_at IS NOT NULL AND tenant_id IS NULL"
						  " AND $1 BETWEEN first_position AND last_position",
						  position) > 0;
}

/*
 * EQ028 if "after" is a position that this store has lost.  last is the
 * highest position that a reader may see.
 */
void
eq_check_not_ahead(int64 after, int64 last)
{
	int64 generation = after >> EQ_GENERATION_BITS;
	int64 go_on;

	if (RecoveryInProgress())
		return; /* a standby may lag behind what its consumers know */
	if (after > last)
	{
		if (after <= eq_last_position())
			return;
	}
	else if (generation < last >> EQ_GENERATION_BITS)
	{
		EqReader *reader = eq_reader_begin(
			after - 1, ((generation + 1) << EQ_GENERATION_BITS), NULL);
		bool known = eq_reader_next(reader) != NULL;

		(void) eq_reader_end(reader);
		if (known || was_archived(after))
			return;
	}
	else
		return;

	go_on = eq_query_int64(
		"SELECT greatest(0,"
		" (SELECT max(position) FROM event_queue.event_store WHERE position <= $1),"
		" (SELECT max(last_position) FROM event_queue_internal.event_partition"
		" WHERE archived_at IS NOT NULL AND last_position <= $1))",
		after);
	ereport(ERROR,
			(errcode(ERRCODE_EQ_AHEAD_OF_STORE),
			 errmsg("position " INT64_FORMAT " is ahead of the event store", after),
			 errdetail_internal("{\"position\": " INT64_FORMAT
								", \"go_on_after\": " INT64_FORMAT "}",
								after, go_on),
			 errhint("The store was restored to an earlier point: undo what came "
					 "from events after position " INT64_FORMAT
					 ", and read on from there.",
					 go_on)));
}

Datum
eq_generation_sql(PG_FUNCTION_ARGS)
{
	int64 last = eq_watermark();

	PG_RETURN_TEXT_P(cstring_to_text(psprintf(INT64_FORMAT "-" UINT64_FORMAT,
											  last >> EQ_GENERATION_BITS,
											  (uint64) stored_identity())));
}
