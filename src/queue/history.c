/*
 * history.c: finished jobs of queues that keep them.
 *
 * Rows go straight into the partition of the day, as an insert into the parent
 * would route them; dead.sql makes and drops the partitions.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "datatype/timestamp.h"
#include "queue/queue.h"
#include "store/store.h"
#include "table/table.h"

/* The partition of a time; the default one if the day has none. */
static Oid
partition_of(TimestampTz at)
{
	char name[NAMEDATALEN];
	int year;
	int month;
	int day;
	Oid relid;

	/* at is not before 2000 */
	j2date((int) (at / USECS_PER_DAY) + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	snprintf(name, sizeof(name), "job_history_%04d%02d%02d", year, month, day);
	relid = get_relname_relid(name, get_namespace_oid(EQ_SCHEMA, false));
	return OidIsValid(relid) ? relid : eq_relation_oid(EQ_JOB_HISTORY_DEFAULT);
}

static Datum
detoasted(TupleTableSlot *job, int column, const char *if_null)
{
	if (job->tts_isnull[column - 1])
		return DirectFunctionCall1(jsonb_in, CStringGetDatum(if_null));
	return PointerGetDatum(PG_DETOAST_DATUM(job->tts_values[column - 1]));
}

void
eq_keep_completed(TupleTableSlot *slot, TimestampTz now, Jsonb *result)
{
	EqTable history;
	Datum values[HISTORY_COLUMNS];
	bool nulls[HISTORY_COLUMNS] = {false};
	Datum *job = slot->tts_values;

	values[HISTORY_ID - 1] = job[JOB_ID - 1];
	values[HISTORY_QUEUE - 1] = job[JOB_QUEUE - 1];
	values[HISTORY_TENANT - 1] = job[JOB_TENANT - 1];
	values[HISTORY_NAME - 1] = job[JOB_NAME - 1];
	values[HISTORY_PRIORITY - 1] = job[JOB_PRIORITY - 1];
	values[HISTORY_CREATED_AT - 1] = job[JOB_CREATED_AT - 1];
	values[HISTORY_RUN_AT - 1] = job[JOB_RUN_AT - 1];
	values[HISTORY_COMPLETED_AT - 1] = TimestampTzGetDatum(now);
	values[HISTORY_LEASED_BY - 1] = job[JOB_LEASED_BY - 1];
	nulls[HISTORY_LEASED_BY - 1] = slot->tts_isnull[JOB_LEASED_BY - 1];
	values[HISTORY_FAILURES - 1] = job[JOB_FAILURES - 1];
	values[HISTORY_STALLED - 1] = job[JOB_STALLED - 1];
	values[HISTORY_PAYLOAD - 1] = detoasted(slot, JOB_PAYLOAD, "{}");
	values[HISTORY_METADATA - 1] = detoasted(slot, JOB_METADATA, "{}");
	values[HISTORY_ERRORS - 1] = detoasted(slot, JOB_ERRORS, "[]");
	values[HISTORY_RESULT - 1] = JsonbPGetDatum(result);
	nulls[HISTORY_RESULT - 1] = result == NULL;
	eq_table_open(&history, partition_of(now), HISTORY_COLUMNS);
	eq_table_insert(&history, values, nulls);
	eq_table_close(&history);
}
