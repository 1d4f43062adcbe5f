/*
 * job_row.h: the new version of a job's row; for the files of this room only.
 */
#ifndef EQ_JOB_ROW_H
#define EQ_JOB_ROW_H

#include "queue/queue.h"
#include "table/table.h"

/* A new version of a row: as it is, but for what is set in it. */
typedef struct EqJobEdit
{
	TupleTableSlot *old; /* all columns fetched */
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];
} EqJobEdit;

extern void eq_edit_job(EqJobEdit *edit, TupleTableSlot *old);

static inline void
eq_edit_set(EqJobEdit *edit, int column, Datum value)
{
	edit->values[column - 1] = value;
	edit->nulls[column - 1] = false;
}

static inline void
eq_edit_set_null(EqJobEdit *edit, int column)
{
	edit->values[column - 1] = (Datum) 0;
	edit->nulls[column - 1] = true;
}

extern void eq_edit_set_run_at(EqJobEdit *edit, const EqQueue *queue,
							   TimestampTz run_at);
extern void eq_edit_clear_lease(EqJobEdit *edit);
extern void eq_write_job(EqTable *jobs, Snapshot snapshot, const EqJobEdit *edit);
extern void eq_count_lease_gone(const TupleTableSlot *job);
extern bool eq_write_job_if_unchanged(EqTable *jobs, Snapshot snapshot,
									  const EqJobEdit *edit, bool wake);
#ifdef EQ_NO_METRICS
#define eq_count_job_row(job, counter, us, first) ((void) 0)
#else
extern void eq_count_job_row(const Datum *job, EqCounter counter, int64 us,
							 bool first);
#endif
extern void eq_job_is_claimable(int32 queue_id, int32 lane, int32 priority,
								TimestampTz run_at, int64 job_id, int64 n);

#endif /* EQ_JOB_ROW_H */
