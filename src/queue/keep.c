/*
 * keep.c: the keep options of a job (column keep): how long it is kept once finished.
 *
 * A job that gives keep_completed or keep_completed_count overrides both settings of its
 * queue; so does keep_failed or keep_failed_count for dead letters, which maintain.sql
 * reads.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "common/interval.h"
#include "queue/queue.h"

/* 1000 years, which mean forever; as the queue's settings have it. */
static int64
forever_us(void)
{
	Interval forever = {.month = 1000 * MONTHS_PER_YEAR};

	return eq_interval_us(&forever);
}

/* Is it a time for which a job can be kept? */
static bool
is_keep_time(const Interval *keep)
{
	int64 us = eq_interval_us(keep);

	return us >= 0 && us <= forever_us();
}

/* Options of a new job; as set_retry of option_list.c. */
static void
set_keep(EqNewJob *job, int column, Datum value)
{
	EqKeepOptions *own = palloc(sizeof(EqKeepOptions));

	if (job->keep)
		*own = *job->keep;
	else
		memset(own->nulls, true, sizeof(own->nulls));
	own->values[column - 1] = value;
	own->nulls[column - 1] = false;
	job->keep = own;
}

static void
set_keep_time(EqNewJob *job, int column, const char *name, Datum value)
{
	if (!is_keep_time(DatumGetIntervalP(value)))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_SETTING),
				 errmsg("%s must be between 0 and 1000 years, which means forever",
						name)));
	set_keep(job, column, value);
}

static void
set_keep_count(EqNewJob *job, int column, const char *name, Datum value)
{
	if (DatumGetInt32(value) < 1)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
						errmsg("%s must be at least 1", name)));
	set_keep(job, column, value);
}

void
eq_set_keep_completed(EqNewJob *job, Datum value)
{
	set_keep_time(job, KEEP_COMPLETED, "keep_completed", value);
}

void
eq_set_keep_completed_count(EqNewJob *job, Datum value)
{
	set_keep_count(job, KEEP_COMPLETED_COUNT, "keep_completed_count", value);
}

void
eq_set_keep_failed(EqNewJob *job, Datum value)
{
	set_keep_time(job, KEEP_FAILED, "keep_failed", value);
}

void
eq_set_keep_failed_count(EqNewJob *job, Datum value)
{
	set_keep_count(job, KEEP_FAILED_COUNT, "keep_failed_count", value);
}

/*
 * How long the job in the slot is to be kept, in microseconds (0: not; EQ_FOREVER), and
 * what job_history.keep_count is to be; -1: NULL.
 */
int64
eq_job_keep(const EqQueue *queue, TupleTableSlot *job, int *count)
{
	HeapTupleHeader header;
	TupleDesc desc;
	HeapTupleData row;
	Datum values[KEEP_COLUMNS];
	bool nulls[KEEP_COLUMNS];
	int64 us;

	Assert(job->tts_nvalid >= JOB_COLUMNS);
	*count = -1;
	if (job->tts_isnull[JOB_KEEP - 1])
		return queue->keep_completed;
	header = DatumGetHeapTupleHeader(job->tts_values[JOB_KEEP - 1]);
	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), -1);
	row.t_len = HeapTupleHeaderGetDatumLength(header);
	row.t_data = header;
	ItemPointerSetInvalid(&row.t_self);
	row.t_tableOid = InvalidOid;
	if (desc->natts != KEEP_COLUMNS)
		elog(ERROR, "type keep_options has %d columns", desc->natts);
	heap_deform_tuple(&row, desc, values, nulls);
	ReleaseTupleDesc(desc);
	if (nulls[KEEP_COMPLETED - 1] && nulls[KEEP_COMPLETED_COUNT - 1])
		return queue->keep_completed;
	*count = nulls[KEEP_COMPLETED_COUNT - 1]
				 ? 0
				 : DatumGetInt32(values[KEEP_COMPLETED_COUNT - 1]);
	if (nulls[KEEP_COMPLETED - 1])
		return EQ_FOREVER;
	us = eq_interval_us(DatumGetIntervalP(values[KEEP_COMPLETED - 1]));
	return us >= forever_us() ? EQ_FOREVER : us;
}
