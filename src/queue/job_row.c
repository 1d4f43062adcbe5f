/*
 * job_row.c: writes a new version of a job's row, and derives what follows from it.
 *
 * Every change of a row in C goes through here (but for a flag: mark_in in depend.c), so no caller has to know what it means for
 * the ready mark (mark.c) and for sleeping claimers:
 *
 * - If the job leaves its place in the order of claims (it moved, is leased or is blocked),
 *   this transaction no longer sees it there, but it is back if the change is rolled back.
 *   So this transaction must not raise the mark over that place.
 * - If the job becomes claimable at a place (it moved, is no longer leased or no longer
 *   blocked), the commit lowers the mark to that place and wakes claimers.
 *
 * For plain SQL the triggers note_written (mark.c) and jobs_loaded (wake.c) do the same,
 * the latter for the table as a whole.  New jobs are noted by eq_after_enqueue, since many
 * are inserted at once; rows are deleted by settle.c, admin.c and dead.c.
 *
 * Counters, group reviews and dependents do not follow from the row: they depend on why it
 * changed, which the caller knows.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "queue/job_row.h"
#include "wake/series.h"
#include "wake/wake.h"

/* Begins a new version of a row, equal to the old one. */
void
eq_edit_job(EqJobEdit *edit, TupleTableSlot *old)
{
	slot_getallattrs(old);
	edit->old = old;
	memcpy(edit->values, old->tts_values, sizeof(edit->values));
	memcpy(edit->nulls, old->tts_isnull, sizeof(edit->nulls));
}

/* Sets when the job is due, and with it the lane that a fair queue has for it then. */
void
eq_edit_set_run_at(EqJobEdit *edit, const EqQueue *queue, TimestampTz run_at)
{
	eq_edit_set(edit, JOB_RUN_AT, TimestampTzGetDatum(run_at));
	/* Rows of a queue that is no longer fair may still have lanes. */
	if (queue && (queue->fair || DatumGetInt32(edit->values[JOB_LANE - 1]) != 0))
		eq_edit_set(
			edit, JOB_LANE,
			Int32GetDatum(eq_job_lane(
				queue, TextDatumGetCString(edit->values[JOB_TENANT - 1]), run_at)));
}

void
eq_edit_clear_lease(EqJobEdit *edit)
{
	eq_edit_set_null(edit, JOB_LEASE_TOKEN);
	eq_edit_set_null(edit, JOB_LEASED_UNTIL);
	eq_edit_set_null(edit, JOB_LEASED_BY);
	eq_edit_set_null(edit, JOB_CLAIMED_AT);
	eq_edit_set_null(edit, JOB_LEASE_PID);
	eq_edit_set(edit, JOB_SUSPENDED, BoolGetDatum(false));
}

/*
 * After commit, has n jobs found that can be claimed from this place on; job_id: the
 * lowest, 0: unknown.
 */
void
eq_job_is_claimable(int32 queue_id, int32 lane, int32 priority, TimestampTz run_at,
					int64 job_id, int64 n)
{
	eq_lower_mark_at_commit(queue_id, lane, priority, run_at, job_id);
	eq_wake_queue_for(queue_id, n);
}

static bool
is_moved(const Datum *old, const Datum *new)
{
	return DatumGetTimestampTz(old[JOB_RUN_AT - 1]) !=
			   DatumGetTimestampTz(new[JOB_RUN_AT - 1]) ||
		   DatumGetInt32(old[JOB_LANE - 1]) != DatumGetInt32(new[JOB_LANE - 1]) ||
		   DatumGetInt16(old[JOB_PRIORITY - 1]) !=
			   DatumGetInt16(new[JOB_PRIORITY - 1]);
}

/* Each claim draws a token. */
static bool
has_new_token(const EqJobEdit *edit)
{
	int i = JOB_LEASE_TOKEN - 1;

	return !edit->nulls[i] &&
		   (edit->old->tts_isnull[i] ||
			memcmp(DatumGetUUIDP(edit->old->tts_values[i]),
				   DatumGetUUIDP(edit->values[i]), UUID_LEN) != 0);
}

/* Does what follows from the change; wake: unless the caller will look itself. */
static void
note_change(const EqJobEdit *edit, bool wake)
{
	const Datum *old = edit->old->tts_values;
	const Datum *new = edit->values;
	bool was_there = DatumGetInt16(old[JOB_BLOCKED - 1]) == JOB_NOT_BLOCKED;
	bool is_there = DatumGetInt16(new[JOB_BLOCKED - 1]) == JOB_NOT_BLOCKED;
	bool was_leased = !edit->old->tts_isnull[JOB_LEASED_UNTIL - 1];
	bool is_leased = !edit->nulls[JOB_LEASED_UNTIL - 1];
	bool is_claimed = is_leased && has_new_token(edit);
	bool moved = is_moved(old, new);

	Assert(DatumGetInt64(old[JOB_ID - 1]) == DatumGetInt64(new[JOB_ID - 1]));
	Assert(DatumGetInt32(old[JOB_QUEUE - 1]) == DatumGetInt32(new[JOB_QUEUE - 1]));
	/* A claim writes no column of an index, so that its update is HOT. */
	Assert(!is_claimed || (is_there && !moved));

	if (was_there && (!is_there || moved || is_claimed))
		eq_forbid_mark_raise();
	if (!is_there || !(moved || !was_there || (was_leased && !is_leased)))
		return;
	eq_lower_mark_at_commit(
		DatumGetInt32(new[JOB_QUEUE - 1]), DatumGetInt32(new[JOB_LANE - 1]),
		DatumGetInt16(new[JOB_PRIORITY - 1]),
		DatumGetTimestampTz(new[JOB_RUN_AT - 1]), DatumGetInt64(new[JOB_ID - 1]));
	if (wake)
		eq_wake_queue(DatumGetInt32(new[JOB_QUEUE - 1]));
}

/* Counts a lease that began or ended. */
static void
count_lease_change(const EqJobEdit *edit)
{
	bool was_leased = !edit->old->tts_isnull[JOB_LEASED_UNTIL - 1];
	bool is_leased = !edit->nulls[JOB_LEASED_UNTIL - 1];

	if (was_leased != is_leased)
		eq_count(DatumGetInt32(edit->values[JOB_QUEUE - 1]), EQ_COUNT_LEASED,
				 is_leased ? 1 : -1);
}

/* Writes the new version of a row that the caller has locked. */
void
eq_write_job(EqTable *jobs, Snapshot snapshot, const EqJobEdit *edit)
{
	note_change(edit, true);
	count_lease_change(edit); /* before the old row is overwritten */
	eq_table_update(jobs, edit->old, snapshot, edit->values, edit->nulls);
}

/* Counts a job that is leaving the table, as to its lease. */
void
eq_count_lease_gone(const TupleTableSlot *job)
{
	if (!job->tts_isnull[JOB_LEASED_UNTIL - 1])
		eq_count(DatumGetInt32(job->tts_values[JOB_QUEUE - 1]), EQ_COUNT_LEASED, -1);
}

#ifndef EQ_NO_METRICS
/* After commit, counts what happened to the job of a row, by its name and its tenant. */
void
eq_count_job_row(const Datum *job, EqCounter counter, int64 us, bool first)
{
	text *name = DatumGetTextPP(job[JOB_NAME - 1]);
	text *tenant = DatumGetTextPP(job[JOB_TENANT - 1]);
	EqJobNames names = {DatumGetInt32(job[JOB_QUEUE - 1]), VARDATA_ANY(name),
						VARSIZE_ANY_EXHDR(name), VARDATA_ANY(tenant),
						VARSIZE_ANY_EXHDR(tenant)};

	eq_count_job(&names, counter, 1, us, first);
}
#endif

/*
 * Writes the new version of a row that the caller has seen and not locked; false if
 * someone has changed it since.  What was noted for it then only costs a look.
 */
bool
eq_write_job_if_unchanged(EqTable *jobs, Snapshot snapshot, const EqJobEdit *edit,
						  bool wake)
{
	note_change(edit, wake);
	if (!eq_table_update_if_unchanged(jobs, edit->old, snapshot, edit->values,
									  edit->nulls))
		return false;
	count_lease_change(edit);
	return true;
}
