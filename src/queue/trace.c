/*
 * trace.c: writes the row of job_trace that remains of a finished job, for trace().
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/json.h"
#include "queue/queue.h"
#include "table/table.h"

int eq_keep_trace_s = 0; /* event_queue.keep_trace */

/*
 * Writes the row for the completed job in the slot, which the history keeps for so many
 * microseconds: none if that is as long as event_queue.keep_trace, or if no event caused the
 * job.
 */
void
eq_insert_trace(int64 keep, TupleTableSlot *slot, TimestampTz now)
{
	Datum values[TRACE_COLUMNS];
	bool nulls[TRACE_COLUMNS] = {false};
	Datum *job = slot->tts_values;
	Jsonb *metadata;
	JsonbValue buffer;
	char *event_id;
	char *rule;
	int64 parent_job;
	int64 rule_version;
	EqTable trace;

	if (keep >= eq_keep_trace_s * USECS_PER_SEC ||
		slot->tts_isnull[JOB_METADATA - 1])
		return;
	metadata = DatumGetJsonbP(job[JOB_METADATA - 1]);
	event_id = eq_json_string(eq_json_member(metadata, "event_id", &buffer));
	if (event_id == NULL || strlen(event_id) > EQ_MAX_NAME)
		return;
	rule = eq_json_string(eq_json_member(metadata, "rule", &buffer));
	values[TRACE_ID - 1] = job[JOB_ID - 1];
	values[TRACE_QUEUE - 1] = job[JOB_QUEUE - 1];
	values[TRACE_TENANT - 1] = job[JOB_TENANT - 1];
	values[TRACE_NAME - 1] = job[JOB_NAME - 1];
	values[TRACE_EVENT - 1] = CStringGetTextDatum(event_id);
	nulls[TRACE_RULE - 1] = rule == NULL;
	values[TRACE_RULE - 1] = rule ? CStringGetTextDatum(rule) : 0;
	nulls[TRACE_PARENT - 1] = !eq_json_fits_int64(
		eq_json_member(metadata, "parent_job", &buffer), &parent_job);
	values[TRACE_PARENT - 1] = nulls[TRACE_PARENT - 1] ? 0
													   : Int64GetDatum(parent_job);
	nulls[TRACE_RULE_VERSION - 1] = !eq_json_fits_int64(
		eq_json_member(metadata, "rule_version", &buffer), &rule_version);
	values[TRACE_RULE_VERSION - 1] = nulls[TRACE_RULE_VERSION - 1]
										 ? 0
										 : Int64GetDatum(rule_version);
	nulls[TRACE_HANDLER - 1] = eq_present_handler() == NULL;
	values[TRACE_HANDLER - 1] = JsonbPGetDatum(eq_present_handler());
	values[TRACE_OUTCOME - 1] = CStringGetTextDatum("done");
	values[TRACE_CREATED_AT - 1] = job[JOB_CREATED_AT - 1];
	values[TRACE_FINISHED_AT - 1] = TimestampTzGetDatum(now);
	eq_table_open(&trace, eq_relation_oid(EQ_JOB_TRACE), TRACE_COLUMNS);
	eq_table_insert(&trace, values, nulls);
	eq_table_close(&trace);
}
