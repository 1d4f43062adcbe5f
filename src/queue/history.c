/*
 * history.c: writes finished jobs of queues that keep them.
 *
 * Rows go directly to the partition of the time when they expire, as an insert into the
 * parent would route them; history.sql creates and drops the partitions.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "datatype/timestamp.h"
#include "queue/queue.h"
#include "steps/steps.h"
#include "table/table.h"

/* How long the time is that a partition stands for; job_history.span. */
typedef enum Span
{
	SPAN_HOUR,
	SPAN_DAY,
	SPAN_MONTH,
	SPAN_FOREVER,
	SPAN_EARLY /* not where it belongs: its partition was not there */
} Span;

/* The partition last written to, of each span but the last. */
typedef struct Partition
{
	Oid relid; /* InvalidOid: unknown */
	TimestampTz begins_at;
	TimestampTz ends_at;
} Partition;

static Partition partitions[SPAN_FOREVER];
static Oid watched = InvalidOid; /* job_history */

/* A partition goes, or one comes: then job_history is told, too. */
static void
history_changed(Datum arg, Oid relid)
{
	for (int i = 0; i < SPAN_FOREVER; i++)
	{
		if (!OidIsValid(relid) || relid == partitions[i].relid || relid == watched)
			partitions[i].relid = InvalidOid;
	}
}

/* As history_span in history.sql. */
static Span
span_of(int64 keep)
{
	if (keep >= EQ_FOREVER)
		return SPAN_FOREVER;
	if (keep <= USECS_PER_DAY)
		return SPAN_HOUR;
	return keep <= 60 * USECS_PER_DAY ? SPAN_DAY : SPAN_MONTH;
}

static TimestampTz
month_begins_at(int year, int month)
{
	return (date2j(year, month, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
}

/* Looks up the partition of a time, which is not before 2000; or job_history_early. */
static void
find_partition(Partition *partition, Span span, TimestampTz at)
{
	char name[NAMEDATALEN];
	int year;
	int month;
	int day;
	TimestampTz unit = span == SPAN_HOUR ? USECS_PER_HOUR : USECS_PER_DAY;

	j2date((int) (at / USECS_PER_DAY) + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	partition->begins_at = at - at % unit;
	partition->ends_at = partition->begins_at + unit;
	if (span == SPAN_HOUR)
		snprintf(name, sizeof(name), "job_history_h_%04d%02d%02d%02d", year, month,
				 day, (int) (at % USECS_PER_DAY / USECS_PER_HOUR));
	else if (span == SPAN_DAY)
		snprintf(name, sizeof(name), "job_history_d_%04d%02d%02d", year, month, day);
	else
	{
		snprintf(name, sizeof(name), "job_history_m_%04d%02d", year, month);
		partition->begins_at = month_begins_at(year, month);
		partition->ends_at = month == MONTHS_PER_YEAR
								 ? month_begins_at(year + 1, 1)
								 : month_begins_at(year, month + 1);
	}
	/* Set before the look-up, so that an invalidation during it sticks. */
	partition->relid = eq_relation_oid(EQ_JOB_HISTORY_EARLY);
	{
		Oid relid = get_relname_relid(name, get_namespace_oid(EQ_SCHEMA, false));

		if (OidIsValid(partition->relid) && OidIsValid(relid))
			partition->relid = relid;
	}
}

/*
 * The table for a row that expires then, locked for writing: one that was dropped
 * while we waited for the lock is looked up again.
 */
static Oid
lock_partition(Span span, TimestampTz at)
{
	Partition *partition = &partitions[span];

	if (span == SPAN_FOREVER)
		return eq_relation_oid(EQ_JOB_HISTORY_FOREVER);
	if (watched != eq_relation_oid(EQ_JOB_HISTORY))
	{
		static bool registered = false;

		watched = eq_relation_oid(EQ_JOB_HISTORY);
		history_changed((Datum) 0, InvalidOid);
		if (!registered)
			CacheRegisterRelcacheCallback(history_changed, (Datum) 0);
		registered = true;
	}
	for (;;)
	{
		Oid relid;

		if (!OidIsValid(partition->relid) || at < partition->begins_at ||
			at >= partition->ends_at)
			find_partition(partition, span, at);
		relid = partition->relid;
		if (!OidIsValid(relid))
			continue;
		LockRelationOid(relid, RowExclusiveLock);
		if (partition->relid == relid)
			return relid;
		UnlockRelationOid(relid, RowExclusiveLock);
	}
}

static Datum
detoasted(TupleTableSlot *job, int column, const char *if_null)
{
	if (job->tts_isnull[column - 1])
		return DirectFunctionCall1(jsonb_in, CStringGetDatum(if_null));
	return PointerGetDatum(PG_DETOAST_DATUM(job->tts_values[column - 1]));
}

void
eq_insert_history(TupleTableSlot *slot, TimestampTz now, int64 keep, int keep_count,
				  Jsonb *result)
{
	Span span = span_of(keep);
	TimestampTz expires_at = span == SPAN_FOREVER ? DT_NOEND : now + keep;
	Oid relid = lock_partition(span, expires_at);
	EqTable history;
	Datum values[HISTORY_COLUMNS];
	bool nulls[HISTORY_COLUMNS] = {false};
	Datum *job = slot->tts_values;
	Jsonb *steps;

	values[HISTORY_ID - 1] = job[JOB_ID - 1];
	values[HISTORY_QUEUE - 1] = job[JOB_QUEUE - 1];
	values[HISTORY_TENANT - 1] = job[JOB_TENANT - 1];
	values[HISTORY_NAME - 1] = job[JOB_NAME - 1];
	values[HISTORY_PRIORITY - 1] = job[JOB_PRIORITY - 1];
	values[HISTORY_CREATED_AT - 1] = job[JOB_CREATED_AT - 1];
	values[HISTORY_RUN_AT - 1] = job[JOB_RUN_AT - 1];
	values[HISTORY_COMPLETED_AT - 1] = TimestampTzGetDatum(now);
	values[HISTORY_EXPIRES_AT - 1] = TimestampTzGetDatum(expires_at);
	values[HISTORY_SPAN - 1] = Int16GetDatum(
		relid == eq_relation_oid(EQ_JOB_HISTORY_EARLY) ? SPAN_EARLY : span);
	values[HISTORY_LEASED_BY - 1] = job[JOB_LEASED_BY - 1];
	nulls[HISTORY_LEASED_BY - 1] = slot->tts_isnull[JOB_LEASED_BY - 1];
	values[HISTORY_FAILURES - 1] = job[JOB_FAILURES - 1];
	values[HISTORY_STALLED - 1] = job[JOB_STALLED - 1];
	values[HISTORY_PAYLOAD - 1] = detoasted(slot, JOB_PAYLOAD, "{}");
	values[HISTORY_METADATA - 1] = detoasted(slot, JOB_METADATA, "{}");
	values[HISTORY_ERRORS - 1] = detoasted(slot, JOB_ERRORS, "[]");
	values[HISTORY_RESULT - 1] = JsonbPGetDatum(result);
	nulls[HISTORY_RESULT - 1] = result == NULL;
	values[HISTORY_CLAIMED_AT - 1] = job[JOB_CLAIMED_AT - 1];
	nulls[HISTORY_CLAIMED_AT - 1] = slot->tts_isnull[JOB_CLAIMED_AT - 1];
	values[HISTORY_KEEP_COUNT - 1] = Int32GetDatum(keep_count);
	nulls[HISTORY_KEEP_COUNT - 1] = keep_count < 0;
	values[HISTORY_HANDLER - 1] = JsonbPGetDatum(eq_present_handler());
	nulls[HISTORY_HANDLER - 1] = eq_present_handler() == NULL;
	steps = DatumGetBool(job[JOB_HAS_STEPS - 1])
				? eq_steps_to_keep(DatumGetInt64(job[JOB_ID - 1]))
				: NULL;
	values[HISTORY_STEPS - 1] = JsonbPGetDatum(steps);
	nulls[HISTORY_STEPS - 1] = steps == NULL;
	eq_table_open(&history, relid, HISTORY_COLUMNS);
	eq_table_insert(&history, values, nulls);
	eq_table_close(&history);
}
