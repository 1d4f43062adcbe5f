/*
 * end.c: ends the steps of a job together with the job.
 *
 * Steps of a completed job are deleted, or moved into its history row if it has one.  If
 * the job dies or is cancelled, the jobs that undo its steps are enqueued in the same
 * transaction.  Called by src/queue for jobs that have steps, and by a trigger for deletes
 * by plain SQL.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/json.h"
#include "common/try.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "steps/in_hand.h"
#include "steps/steps.h"
#include "table/table.h"

PG_FUNCTION_INFO_V1(eq_end_steps);

/* Deletes all steps of a job. */
static void
delete_steps(int64 job_id)
{
	static EqStatement delete = {
		.sql = "DELETE FROM event_queue.job_step WHERE job_id = $1",
		.n_arguments = 1,
		.types = {INT8OID}};
	Datum value = Int64GetDatum(job_id);

	eq_run_as_owner(&delete, &value, NULL);
}

/*
 * Returns the steps of a completed job, for its history; NULL if it has none.  At most a
 * thousand, with results of event_queue.max_payload in all: more could fail the completion.
 */
Jsonb *
eq_steps_to_keep(int64 job_id)
{
	static EqStatement keep = {
		.sql = "SELECT event_queue_internal.steps_to_keep($1, $2)",
		.n_arguments = 2,
		.types = {INT8OID, INT8OID}};
	Datum values[2] = {Int64GetDatum(job_id),
					   Int64GetDatum(eq_max_payload_kb * INT64CONST(1024))};
	MemoryContext caller = CurrentMemoryContext;
	Jsonb *steps = NULL;
	Datum value;
	bool isnull;
	EqSpi spi;

	CommandCounterIncrement();
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&keep, values, NULL);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		steps = DatumGetJsonbPCopy(value);
		MemoryContextSwitchTo(old);
	}
	eq_spi_end(&spi);
	return steps;
}

/* The job is done: who held it, and so wrote its steps, has ended it. */
void
eq_forget_steps(int64 job_id)
{
	EqTable steps;
	EqScan scan;
	ScanKeyData key;
	Snapshot snapshot;
	bool changed = false;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	eq_table_open(&steps, eq_relation_oid(EQ_JOB_STEP), STEP_COLUMNS);
	eq_scan_begin(&scan, steps.rel, eq_relation_oid(EQ_JOB_STEP_PKEY), snapshot, 1);
	eq_scan_key(&scan, &key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(job_id));
	eq_scan_start(&scan, &key, 1);
	while (!changed && eq_scan_next(&scan, ForwardScanDirection))
		changed = !eq_table_delete_if_unchanged(&steps, scan.slot, snapshot);
	eq_scan_end(&scan);
	eq_table_close(&steps);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
	if (changed)
		delete_steps(job_id); /* a signal came for a step that waits still */
}

/* A step that is to be undone. */
typedef struct Undo
{
	int64 step_id;
	int64 job_id; /* whose step it is */
	char *tenant;
	char *name;
	Jsonb *undo;
	Jsonb *result;	 /* NULL: none */
	Jsonb *metadata; /* of that job; NULL: none */
	int64 after;	 /* the job that undoes the step after it; 0: none */
	int64 undone_by; /* out */
} Undo;

/* The payload of a job that undoes a step, if the step named none. */
static Jsonb *
default_payload(const Undo *undo)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_int64(&state, "job_id", undo->job_id);
	eq_json_add_string(&state, "step", undo->name, 0);
	if (undo->result)
		eq_json_add_jsonb(&state, "result", undo->result);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * Adds the lineage of the job to the metadata of the one that undoes its step.  Otherwise a
 * rule whose job always dies could run in a loop, by the events of its undo job.
 */
static Jsonb *
undo_metadata(const Undo *undo, Jsonb *given)
{
	static const char *const lineage[] = {"event_id", "correlation_id", "rule_chain",
										  "rule_root"};
	JsonbParseState *state = NULL;
	Jsonb *own;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < lengthof(lineage); i++)
	{
		JsonbValue buffer;
		JsonbValue *value = eq_json_member(undo->metadata, lineage[i], &buffer);

		if (value)
			eq_json_add_jsonb(&state, lineage[i], JsonbValueToJsonb(value));
	}
	eq_json_add_int64(&state, "parent_job", undo->job_id);
	eq_json_add_string(&state, "undoes", undo->name, 0);
	own = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	if (given && JB_ROOT_IS_OBJECT(given))
		own = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(given),
												 JsonbPGetDatum(own)));
	return own;
}

/* Enqueues the job that undoes a step, after those of the steps that came later. */
static void
enqueue_undo(void *argument)
{
	Undo *undo = argument;
	EqNewJob job = {.tenant = undo->tenant};
	const EqQueue *queue;

	eq_read_job_options(&job, &undo->undo->root, EQ_IN_UNDO, false);
	queue = eq_get_queue(job.queue_name);
	if (job.payload == NULL)
		job.payload = default_payload(undo);
	job.metadata = undo_metadata(undo, job.metadata);
	if (undo->after != 0)
	{
		Datum id = Int64GetDatum(undo->after);

		job.depends_on = construct_array(&id, 1, INT8OID, sizeof(int64),
										 FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	}
	eq_check_new_job(&job, queue, GetCurrentTimestamp());
	undo->undone_by = eq_enqueue(queue, &job);
}

/* The steps that have an undo, the last one first. */
static int
read_undos(int64 job_id, Undo **undos)
{
	static EqStatement find = {
		.sql = "SELECT step_id, tenant_id, name, undo, result"
			   " FROM event_queue.job_step"
			   " WHERE job_id = $1 AND undo IS NOT NULL AND state = 0"
			   " ORDER BY step_id DESC",
		.n_arguments = 1,
		.types = {INT8OID}};
	Datum value = Int64GetDatum(job_id);
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	EqSpi spi;
	int n;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&find, &value, NULL);
	n = SPI_processed;
	old = MemoryContextSwitchTo(caller);
	*undos = palloc0(Max(n, 1) * sizeof(Undo));
	for (int i = 0; i < n; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		Undo *undo = &(*undos)[i];
		bool isnull;
		Datum result;

		undo->job_id = job_id;
		undo->step_id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		undo->tenant = SPI_getvalue(row, desc, 2);
		undo->name = SPI_getvalue(row, desc, 3);
		undo->undo = DatumGetJsonbPCopy(SPI_getbinval(row, desc, 4, &isnull));
		result = SPI_getbinval(row, desc, 5, &isnull);
		undo->result = isnull ? NULL : DatumGetJsonbPCopy(result);
	}
	MemoryContextSwitchTo(old);
	eq_spi_end(&spi);
	return n;
}

/* Marks the first undone step and all after it as undone, so that a retry does them anew. */
static void
note_undone(int64 job_id, const Undo *undos, int n)
{
	static EqStatement note = {
		.sql =
			"UPDATE event_queue.job_step SET state = CASE"
			" WHEN step_id = ANY ($3) THEN 4 ELSE 3 END, at = pg_catalog.clock_timestamp()"
			" WHERE job_id = $1 AND step_id >= $2",
		.n_arguments = 3,
		.types = {INT8OID, INT8OID, INT8ARRAYOID}};
	Datum *failed = palloc(n * sizeof(Datum));
	int n_failed = 0;
	Datum values[3];

	for (int i = 0; i < n; i++)
	{
		if (undos[i].undone_by == 0)
			failed[n_failed++] = Int64GetDatum(undos[i].step_id);
	}
	values[0] = Int64GetDatum(job_id);
	values[1] = Int64GetDatum(undos[n - 1].step_id);
	values[2] = PointerGetDatum(construct_array(
		failed, n_failed, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	eq_run_as_owner(&note, values, NULL);
}

/*
 * The job died or was cancelled: what undoes its steps is enqueued, that of the last step
 * first, each after the one before.  Where that can't be (a queue that was dropped, or
 * drains), the end of the job does not fail: the step says so, and the log; it does if it
 * is cancelled, or the disk is full, as nothing would undo the steps later.  metadata: the
 * job's; NULL: none.  keep: as a dead letter, the job may be retried, and steps that were
 * not undone stand still.
 */
void
eq_undo_steps(int64 job_id, Jsonb *metadata, bool keep)
{
	Undo *undos;
	int n;
	int64 after = 0;

	CommandCounterIncrement();
	n = read_undos(job_id, &undos);
	for (int i = 0; i < n; i++)
	{
		ErrorData *error;

		undos[i].after = after;
		undos[i].metadata = metadata;
		error = eq_try(enqueue_undo, &undos[i]);
		if (error && eq_is_of_transaction(error))
			ReThrowError(error);
		if (error == NULL)
			after = undos[i].undone_by;
		else
			ereport(WARNING, (errcode(error->sqlerrcode),
							  errmsg("step \"%s\" of job " INT64_FORMAT
									 " could not be undone: %s",
									 undos[i].name, job_id, error->message)));
	}
	if (!keep)
		delete_steps(job_id);
	else if (n > 0)
		note_undone(job_id, undos, n);
}

/*
 * Trigger after plain SQL deleted a job or dead letter that has steps, with the owner's
 * rights.  A row that went from the one table to the other keeps them.
 */
Datum
eq_end_steps(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc desc;
	int64 job_id;
	Datum metadata;
	bool isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("end_steps: not called by its triggers")));
	/* job_id is the first column of both tables. */
	desc = RelationGetDescr(trigger->tg_relation);
	job_id = DatumGetInt64(heap_getattr(trigger->tg_trigtuple, 1, desc, &isnull));
	metadata = SPI_getbinval(trigger->tg_trigtuple, desc,
							 SPI_fnumber(desc, "metadata"), &isnull);
	if (eq_query_int64(
			"SELECT count(*) FROM ("
			"SELECT FROM event_queue.job WHERE job_id = $1 UNION ALL "
			"SELECT FROM event_queue.dead_letter WHERE job_id = $1) lives",
			job_id) == 0)
		eq_undo_steps(job_id, isnull ? NULL : DatumGetJsonbP(metadata), false);
	PG_RETURN_POINTER(NULL);
}
