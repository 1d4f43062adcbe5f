/*
 * job_event.c: appends job.completed and job.dead events, for queues with job_events.
 *
 * The event is appended in the transaction that ends the job.  It belongs to an aggregate
 * of the reserved type "event_queue.job", so that aggregates of users get no versions from
 * it; the aggregate that caused the job is in its data.  It carries the job's rule_chain, so
 * that a rule on these events does not run in a loop with its own jobs.
 *
 * Called by settle.c and dead.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "common/json.h"
#include "event_queue.h"
#include "queue/job_row.h"
#include "queue/queue.h"
#include "store/store.h"
#include "table/table.h"

/* The aggregate of the event that a rule made the job of, if it is still there. */
static void
add_aggregate(JsonbParseState **state, Jsonb *metadata, const char *tenant)
{
	static EqStatement find = {
		.sql = "SELECT aggregate_type, aggregate_id FROM event_queue.event_store"
			   " WHERE position = $1 AND tenant_id = $2",
		.n_arguments = 2,
		.types = {INT8OID, TEXTOID}};
	JsonbValue buffer;
	int64 position;
	char *type = NULL;
	char *id = NULL;
	MemoryContext caller = CurrentMemoryContext;
	EqSpi spi;

	if (metadata == NULL ||
		!eq_json_fits_int64(eq_json_member(metadata, "event_position", &buffer),
							&position))
		return;
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	{
		Datum values[2] = {Int64GetDatum(position), CStringGetTextDatum(tenant)};

		eq_spi_run(&find, values, NULL);
		if (SPI_processed > 0)
		{
			HeapTuple row = SPI_tuptable->vals[0];

			type = MemoryContextStrdup(caller,
									   SPI_getvalue(row, SPI_tuptable->tupdesc, 1));
			id = MemoryContextStrdup(caller,
									 SPI_getvalue(row, SPI_tuptable->tupdesc, 2));
		}
	}
	eq_spi_end(&spi);
	eq_json_add_string(state, "aggregate_type", type, 0);
	eq_json_add_string(state, "aggregate_id", id, 0);
}

/* Adds a member if there is room: an event above the limit would be an error, and the job could not end. */
static void
add_json(JsonbParseState **state, const char *key, Jsonb *json, int64 *room)
{
	if (json == NULL)
		return;
	*room -= VARSIZE(json);
	if (*room < 0)
		eq_json_add_string(state, "left_out", key, 0);
	else
		eq_json_add_jsonb(state, key, json);
}

/* A string of the job's metadata, which anyone may have written. */
static void
add_member(JsonbParseState **state, Jsonb *metadata, const char *key, const char *as)
{
	JsonbValue buffer;
	char *text = eq_json_string(eq_json_member(metadata, key, &buffer));

	if (text && strlen(text) <= EQ_MAX_NAME)
		eq_json_add_string(state, as, text, 0);
}

static Jsonb *
end_metadata(Jsonb *metadata, int64 job_id)
{
	JsonbParseState *state = NULL;
	JsonbValue buffer;
	JsonbValue *chain;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_int64(&state, "job_id", job_id);
	if (metadata)
	{
		add_member(&state, metadata, "event_id", "causation_id");
		add_member(&state, metadata, "correlation_id", "correlation_id");
		add_member(&state, metadata, "rule", "rule");
		add_member(&state, metadata, "rule_root", "rule_root");
		chain = eq_json_member(metadata, "rule_chain", &buffer);
		if (chain && chain->type == jbvBinary &&
			chain->val.binary.len < EQ_MAX_NAME * 16)
			eq_json_add_jsonb(&state, "rule_chain", JsonbValueToJsonb(chain));
	}
	return eq_event_metadata(
		JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/*
 * Appends the event for a job that has just ended: reason is NULL if it is completed, with
 * its result, else why it is dead, with its errors.
 */
void
eq_tell_end(const EqQueue *queue, const Datum *job, const bool *isnull, int failures,
			Jsonb *result, const char *reason, Jsonb *errors)
{
	int64 job_id = DatumGetInt64(job[JOB_ID - 1]);
	char *tenant = TextDatumGetCString(job[JOB_TENANT - 1]);
	Jsonb *metadata = isnull[JOB_METADATA - 1]
						  ? NULL
						  : DatumGetJsonbP(job[JOB_METADATA - 1]);
	EqAggregate aggregate = {.type = EQ_JOB_AGGREGATE,
							 .id = psprintf(INT64_FORMAT, job_id),
							 .expected = EQ_EXPECT_ANY};
	EqEvent event = {.aggregate = &aggregate};
	JsonbParseState *state = NULL;
	int64 room = (int64) eq_max_payload_kb * 1024 - 8 * 1024;

	event.type = reason ? "job.dead" : "job.completed";
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_int64(&state, "job_id", job_id);
	eq_json_add_string(&state, "queue", queue->name, 0);
	eq_json_add_string(&state, "name", TextDatumGetCString(job[JOB_NAME - 1]), 0);
	eq_json_add_int64(&state, "failures", failures);
	add_aggregate(&state, metadata, tenant);
	if (reason)
	{
		eq_json_add_string(&state, "reason", reason, 0);
		if (errors && JB_ROOT_COUNT(errors) > 0)
			add_json(&state, "error",
					 JsonbValueToJsonb(getIthJsonbValueFromContainer(
						 &errors->root, JB_ROOT_COUNT(errors) - 1)),
					 &room);
	}
	add_json(&state, "payload", DatumGetJsonbP(job[JOB_PAYLOAD - 1]), &room);
	add_json(&state, "result", result, &room);
	event.data = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	event.metadata = end_metadata(metadata, job_id);
	eq_append_events(tenant, &aggregate, 1, &event, 1);
	/* Others act on it: also where jobs of the queue need not be durable. */
	ForceSyncCommit();
}
