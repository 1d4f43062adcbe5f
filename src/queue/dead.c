/*
 * dead.c: writes dead letters, and the list of errors of a job.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "common/json.h"
#include "queue/job_row.h"
#include "queue/queue.h"
#include "steps/steps.h"
#include "table/table.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_bury_dependents);

#define MAX_ERRORS	   50	/* kept of one job: the last ones */
#define MAX_ERROR_TEXT 2000 /* bytes kept of a message or context */

/* The time as JSON has it, in UTC: it is read in sessions with other settings. */
static char *
time_of_error(void)
{
	static const int utc = 0;
	char text[MAXDATELEN + 1];

	return pstrdup(JsonEncodeDateTime(
		text, TimestampTzGetDatum(GetCurrentTimestamp()), TIMESTAMPTZOID, &utc));
}

/* The errors of a job, with one more at their end. */
Jsonb *
eq_add_error(TupleTableSlot *job, int attempt, const char *sqlstate,
			 const char *message, const char *detail, const char *context)
{
	Jsonb *errors = job->tts_isnull[JOB_ERRORS - 1]
						? NULL
						: DatumGetJsonbP(job->tts_values[JOB_ERRORS - 1]);
	const char *worker = job->tts_isnull[JOB_LEASED_BY - 1]
							 ? NULL
							 : TextDatumGetCString(
								   job->tts_values[JOB_LEASED_BY - 1]);
	JsonbParseState *state = NULL;
	JsonbIterator *it;
	JsonbValue item;
	JsonbIteratorToken token;
	int surplus = errors ? JB_ROOT_COUNT(errors) - (MAX_ERRORS - 1) : 0;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	if (errors)
	{
		it = JsonbIteratorInit(&errors->root);
		token = JsonbIteratorNext(&it, &item, true); /* WJB_BEGIN_ARRAY */
		while ((token = JsonbIteratorNext(&it, &item, true)) == WJB_ELEM)
		{
			if (surplus-- <= 0)
				pushJsonbValue(&state, WJB_ELEM, &item);
		}
	}

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_int64(&state, "attempt", attempt);
	eq_json_add_string(&state, "at", time_of_error(), MAX_ERROR_TEXT);
	eq_json_add_string(&state, "worker", worker, MAX_ERROR_TEXT);
	eq_json_add_string(&state, "sqlstate", sqlstate, MAX_ERROR_TEXT);
	eq_json_add_string(&state, "message", message, MAX_ERROR_TEXT);
	if (detail)
		eq_json_add_string(&state, "detail", detail, MAX_ERROR_TEXT);
	eq_json_add_string(&state, "context", context, MAX_ERROR_TEXT);
	if (eq_present_handler())
		eq_json_add_jsonb(&state, "handler", eq_present_handler());
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/* Moves a locked job to the dead letters; only import_dead writes others. */
void
eq_bury(EqTable *jobs, TupleTableSlot *slot, Snapshot snapshot, const char *reason,
		Jsonb *errors, int failures, int stalled)
{
	const EqQueue *queue = eq_get_queue_by_id(
		DatumGetInt32(slot->tts_values[JOB_QUEUE - 1]));
	EqTable dead;
	Datum values[DEAD_COLUMNS];
	bool nulls[DEAD_COLUMNS] = {false};
	Datum *job = slot->tts_values;
	bool *isnull = slot->tts_isnull;

	values[DEAD_ID - 1] = job[JOB_ID - 1];
	values[DEAD_QUEUE - 1] = job[JOB_QUEUE - 1];
	values[DEAD_TENANT - 1] = job[JOB_TENANT - 1];
	values[DEAD_NAME - 1] = job[JOB_NAME - 1];
	values[DEAD_PRIORITY - 1] = job[JOB_PRIORITY - 1];
	values[DEAD_CREATED_AT - 1] = job[JOB_CREATED_AT - 1];
	values[DEAD_DIED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[DEAD_REASON - 1] = CStringGetTextDatum(reason);
	values[DEAD_FAILURES - 1] = Int32GetDatum(failures);
	values[DEAD_STALLED - 1] = Int32GetDatum(stalled);
	values[DEAD_MAX_ATTEMPTS - 1] = job[JOB_MAX_ATTEMPTS - 1];
	nulls[DEAD_MAX_ATTEMPTS - 1] = isnull[JOB_MAX_ATTEMPTS - 1];
	values[DEAD_TIME_LIMIT - 1] = job[JOB_TIME_LIMIT - 1];
	nulls[DEAD_TIME_LIMIT - 1] = isnull[JOB_TIME_LIMIT - 1];
	values[DEAD_GROUP_KEY - 1] = job[JOB_GROUP_KEY - 1];
	nulls[DEAD_GROUP_KEY - 1] = isnull[JOB_GROUP_KEY - 1];
	values[DEAD_UNIQUE_KEY - 1] = job[JOB_UNIQUE_KEY - 1];
	nulls[DEAD_UNIQUE_KEY - 1] = isnull[JOB_UNIQUE_KEY - 1];
	values[DEAD_HAS_DEPENDENTS - 1] = job[JOB_HAS_DEPENDENTS - 1];
	/* Out of line, they belong to the row that is about to go. */
	nulls[DEAD_RETRY - 1] = isnull[JOB_RETRY - 1];
	if (!isnull[JOB_RETRY - 1])
		values[DEAD_RETRY - 1] = PointerGetDatum(
			PG_DETOAST_DATUM(job[JOB_RETRY - 1]));
	nulls[DEAD_KEEP - 1] = isnull[JOB_KEEP - 1];
	if (!isnull[JOB_KEEP - 1])
		values[DEAD_KEEP - 1] = PointerGetDatum(PG_DETOAST_DATUM(job[JOB_KEEP - 1]));
	values[DEAD_PAYLOAD - 1] = PointerGetDatum(
		PG_DETOAST_DATUM(job[JOB_PAYLOAD - 1]));
	values[DEAD_METADATA - 1] = isnull[JOB_METADATA - 1]
									? JsonbPGetDatum(eq_empty_object())
									: PointerGetDatum(
										  PG_DETOAST_DATUM(job[JOB_METADATA - 1]));
	values[DEAD_ERRORS - 1] = JsonbPGetDatum(errors);
	values[DEAD_HAS_STEPS - 1] = job[JOB_HAS_STEPS - 1];

	eq_table_open(&dead, eq_relation_oid(EQ_DEAD_LETTER), DEAD_COLUMNS);
	eq_table_insert(&dead, values, nulls);
	eq_table_close(&dead);
	eq_forbid_mark_raise(); /* the job is there again if this is rolled back */
	eq_table_delete(jobs, slot, snapshot);
	if (DatumGetBool(job[JOB_HAS_DEPENDENTS - 1]))
		eq_release_followers(DatumGetInt64(job[JOB_ID - 1]));
	if (DatumGetBool(job[JOB_HAS_STEPS - 1]))
		eq_undo_steps(DatumGetInt64(job[JOB_ID - 1]),
					  DatumGetJsonbP(values[DEAD_METADATA - 1]), true);
	if (queue && queue->job_events)
		eq_tell_end(queue, job, isnull, failures, NULL, reason, errors);
	eq_count(DatumGetInt32(job[JOB_QUEUE - 1]), EQ_COUNT_DEAD, 1);
	eq_count_job_row(job, EQ_COUNT_DEAD, 0, false);
	eq_count_lease_gone(slot);
}

/*
 * Trigger after plain SQL deleted a job or dead letter that others depend on.
 * With the owner's rights: who may delete a job need not have any on the table of
 * dependencies.  A row that went from the one table to the other is not gone.
 */
Datum
eq_bury_dependents(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid relid;
	int column;
	int64 job_id;
	bool isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("bury_dependents: not called by its triggers")));
	relid = RelationGetRelid(trigger->tg_relation);
	if (relid == eq_relation_oid(EQ_JOB))
		column = JOB_ID;
	else if (relid == eq_relation_oid(EQ_DEAD_LETTER))
		column = DEAD_ID;
	else
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("bury_dependents: not a trigger of table \"%s\"",
							   RelationGetRelationName(trigger->tg_relation))));
	job_id = DatumGetInt64(heap_getattr(trigger->tg_trigtuple, column,
										RelationGetDescr(trigger->tg_relation),
										&isnull));
	if (eq_query_int64(
			"SELECT count(*) FROM ("
			"SELECT FROM event_queue.job WHERE job_id = $1 UNION ALL "
			"SELECT FROM event_queue.dead_letter WHERE job_id = $1) lives",
			job_id) == 0)
		eq_settle_dependents(job_id, NULL, true);
	PG_RETURN_POINTER(NULL);
}
