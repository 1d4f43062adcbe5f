/*
 * order.c: the order of all actions at the end of a transaction.
 *
 * It is the same for commit, prepare and abort.  None of these functions may throw
 * (xact.h), except those that are called before the end.
 */
#include "postgres.h"

#include "queue/queue.h"
#include "store/store.h"
#include "table/table.h"
#include "wake/series.h"
#include "wake/wake.h"
#include "worker/worker.h"
#include "xact/xact.h"

EqXactKind *const eq_xact_kinds[] = {
	/* First: before the commit it decides by the last WAL record whether the commit
	 * waits for the disk; after it, it restores the setting that it changed. */
	&eq_weak_writes,

	/* Before marks and wakes: a claimer that these bring must find the rows free. */
	&eq_reserved_rows,

	/* Before wakes: who is woken begins his walk at the mark. */
	&eq_noted_marks,

	/* Before wakes: who is woken wants the seats and tokens that are free now. */
	&eq_limit_changes,

	/* After the changes of limits, which count in it when they are undone. */
	&eq_freed_seats,

	/* Says which jobs the transaction has suspended; does nothing at its end. */
	&eq_suspended_jobs,

	/* Before wakes, like what these count of queues. */
	&eq_counted_jobs,

	/* Before positions: who sees the events must know the rules, so the generation of
	 * the configuration is raised before the watermark may pass. */
	&eq_wakes,

	/* After all that the transaction did is in shared memory: releases the watermark
	 * and wakes readers of events; also at abort, since others' events may have waited
	 * below the watermark for this transaction. */
	&eq_taken_positions,

	/* What the session remembers of its fetches: needs and gives nothing here. */
	&eq_session_fetches,

	/* Closes the guard of events; likewise. */
	&eq_open_guards,

	/* After the last use of wake slots: one that is not pinned may become another
	 * queue's. */
	&eq_pinned_slots,

	/* Last: DROP EXTENSION has been seen by all the above, so the workers that come
	 * back find it gone, or as it was. */
	&eq_workers_away,
};

const int eq_n_xact_kinds = lengthof(eq_xact_kinds);
