/*
 * state.c: computes the state of an aggregate at any version or time: the fold of its
 * events by its type's reducer, from the nearest snapshot.
 *
 * A reducer runs as the role that created it, restricted so that it can leave nothing
 * behind, with a pinned search_path.  A snapshot has its reducer's fingerprint
 * (fingerprint.c), so that it is not used after the code changed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "common/argument.h"
#include "common/function.h"
#include "common/json.h"
#include "store/state.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_aggregate_state);
PG_FUNCTION_INFO_V1(eq_create_reducer);
PG_FUNCTION_INFO_V1(eq_reducer_fingerprint_sql);

#define MERGE_FINGERPRINT 1 /* of the built-in reducer */

typedef struct Reducer
{
	bool is_merge; /* the built-in one */
	char *function;
	Oid owner;
	int32 revision;
	FmgrInfo flinfo;
	TupleDesc event_desc;
	int64 fingerprint;
	Oid caller; /* who is switched back to */
	int sec_context;
	int guc_level;
} Reducer;

/* The reducer that was created for a type, or the built-in one. */
static void
read_reducer(Reducer *reducer, const char *type)
{
	MemoryContext context = CurrentMemoryContext;
	Oid arg_type = TEXTOID;
	Datum value = CStringGetTextDatum(type);
	EqSpi spi;

	memset(reducer, 0, sizeof(Reducer));
	PushActiveSnapshot(eq_latest_snapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(
			"SELECT function, owner, revision FROM event_queue.reducer"
			" WHERE aggregate_type = $1 AND function IS NOT NULL",
			1, &arg_type, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read table reducer");
	reducer->is_merge = SPI_processed == 0;
	if (!reducer->is_merge)
	{
		HeapTuple row = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(context);
		bool isnull;

		reducer->revision = DatumGetInt32(SPI_getbinval(row, desc, 3, &isnull));
		reducer->function = SPI_getvalue(row, desc, 1);
		reducer->owner = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
		MemoryContextSwitchTo(old);
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	reducer->fingerprint = MERGE_FINGERPRINT;
}

/* Becomes the reducer's owner until leave_reducer. */
static void
enter_reducer(Reducer *reducer, const char *type)
{
	char *qualified;
	Oid function;

	read_reducer(reducer, type);
	if (reducer->is_merge)
		return;
	GetUserIdAndSecContext(&reducer->caller, &reducer->sec_context);
	eq_check_owner(reducer->owner, "reducer", reducer->function);
	SetUserIdAndSecContext(reducer->owner, reducer->sec_context |
											   SECURITY_LOCAL_USERID_CHANGE |
											   SECURITY_RESTRICTED_OPERATION);
	reducer->guc_level = NewGUCNestLevel();
	(void) set_config_option(
		"search_path",
		psprintf("pg_catalog, %s, pg_temp", eq_function_schema(reducer->function)),
		PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	function = eq_find_function(reducer->function, EQ_FUNCTION_REDUCER, &qualified);
	fmgr_info(function, &reducer->flinfo);
	reducer->fingerprint = eq_fingerprint_of(reducer->function, function,
											 reducer->revision);
	reducer->event_desc = lookup_rowtype_tupdesc_copy(eq_event_type_oid(), -1);
}

static void
leave_reducer(Reducer *reducer)
{
	if (reducer->is_merge)
		return;
	AtEOXact_GUC(false, reducer->guc_level);
	SetUserIdAndSecContext(reducer->caller, reducer->sec_context);
}

static int64
reducer_fingerprint(const char *type)
{
	Reducer reducer;

	enter_reducer(&reducer, type);
	leave_reducer(&reducer);
	return reducer.fingerprint;
}

static Jsonb *
copy_jsonb(Jsonb *value)
{
	Jsonb *copy = palloc(VARSIZE(value));

	memcpy(copy, value, VARSIZE(value));
	return copy;
}

/* The state after one more event, in the current memory context. */
static Jsonb *
apply_event(Reducer *reducer, Jsonb *state, TupleTableSlot *slot)
{
	Datum *values = slot->tts_values;
	Jsonb *data;
	Jsonb *metadata;
	JsonbValue buffer;
	HeapTuple event;
	LOCAL_FCINFO(fcinfo, 2);
	bool read_only = XactReadOnly;
	Datum result;

	slot_getallattrs(slot);
	data = DatumGetJsonbP(values[EVENT_DATA - 1]);
	metadata = DatumGetJsonbP(values[EVENT_METADATA - 1]);

	/* revert_aggregate: the event holds the whole state, for any reducer. */
	if (eq_json_member(metadata, "reverted_to", &buffer))
		return copy_jsonb(data);
	if (reducer->is_merge)
		return JB_ROOT_IS_OBJECT(data) ? eq_merge_patch(state, data)
									   : copy_jsonb(data);

	event = heap_form_tuple(reducer->event_desc, values, slot->tts_isnull);
	InitFunctionCallInfoData(*fcinfo, &reducer->flinfo, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = JsonbPGetDatum(state);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = HeapTupleGetDatum(event);
	fcinfo->args[1].isnull = false;
	/*
	 * A STABLE function may call volatile ones by SELECT, which would do what they do for
	 * each read of a state.  An error restores it with the (sub)transaction.
	 */
	XactReadOnly = true;
	result = FunctionCallInvoke(fcinfo);
	XactReadOnly = read_only;
	if (fcinfo->isnull)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("reducer %s returned null", reducer->function),
						errdetail("For the event at position " INT64_FORMAT ".",
								  DatumGetInt64(values[EVENT_POSITION - 1])),
						errhint("To clear the state, return the JSON value null.")));
	return copy_jsonb(DatumGetJsonbP(result)); /* it may be an argument */
}

/* Begins from the newest snapshot that may be used, if there is one. */
static void
begin_from_snapshot(EqState *state, const char *tenant, const char *type,
					const char *id, int32 at_version, TimestampTz at_time)
{
	Relation rel = table_open(eq_relation_oid(EQ_AGGREGATE_SNAPSHOT),
							  AccessShareLock);
	EqScan scan;
	ScanKeyData keys[4];

	eq_scan_begin(&scan, rel, eq_relation_oid(EQ_AGGREGATE_SNAPSHOT_PKEY),
				  GetActiveSnapshot(), 4);
	eq_aggregate_keys(&scan, keys, tenant, type, id);
	eq_scan_key(&scan, &keys[3], 4, BTLessEqualStrategyNumber, F_INT4LE,
				Int32GetDatum(at_version));
	eq_scan_start(&scan, keys, 4);
	while (eq_scan_next(&scan, BackwardScanDirection))
	{
		Datum *values = scan.slot->tts_values;

		slot_getallattrs(scan.slot);
		/* Of archived events a snapshot is all that is left. */
		if ((DatumGetInt64(values[SNAPSHOT_REDUCER - 1]) != state->reducer &&
			 !DatumGetBool(values[SNAPSHOT_IS_BASE - 1])) ||
			DatumGetTimestampTz(values[SNAPSHOT_EVENT_AT - 1]) > at_time)
			continue;
		state->value = DatumGetJsonbPCopy(values[SNAPSHOT_STATE - 1]);
		state->version = DatumGetInt32(values[SNAPSHOT_VERSION - 1]);
		state->position = DatumGetInt64(values[SNAPSHOT_POSITION - 1]);
		state->event_at = DatumGetTimestampTz(values[SNAPSHOT_EVENT_AT - 1]);
		break;
	}
	eq_scan_end(&scan);
	table_close(rel, AccessShareLock);
}

static void
missing_events(const char *type, const char *id, int32 from, int32 to)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_EVENTS_ARCHIVED),
		 errmsg("events of %s \"%s\" are archived", type, id),
		 errdetail("Versions %d to %d are not in the store.", from, to),
		 errhint("The state is known as of the last archived version and later.")));
}

/*
 * Refuses a state before a base: of what was archived, only the state after it is known.
 * Where the base is the next version, nothing is missing.
 */
static void
check_not_archived(const EqState *state, const char *tenant, const char *type,
				   const char *id)
{
	Relation rel = table_open(eq_relation_oid(EQ_AGGREGATE_SNAPSHOT),
							  AccessShareLock);
	EqScan scan;
	ScanKeyData keys[4];
	int32 base = 0;

	eq_scan_begin(&scan, rel, eq_relation_oid(EQ_AGGREGATE_SNAPSHOT_PKEY),
				  GetActiveSnapshot(), 4);
	eq_aggregate_keys(&scan, keys, tenant, type, id);
	eq_scan_key(&scan, &keys[3], 4, BTGreaterStrategyNumber, F_INT4GT,
				Int32GetDatum(state->version));
	eq_scan_start(&scan, keys, 4);
	while (base == 0 && eq_scan_next(&scan, ForwardScanDirection))
	{
		slot_getallattrs(scan.slot);
		if (DatumGetBool(scan.slot->tts_values[SNAPSHOT_IS_BASE - 1]))
			base = DatumGetInt32(scan.slot->tts_values[SNAPSHOT_VERSION - 1]);
	}
	eq_scan_end(&scan);
	table_close(rel, AccessShareLock);
	if (base > state->version + 1)
		missing_events(type, id, state->version + 1, base - 1);
}

/*
 * Folds what one table has; false when the time is reached, or (*is_gone) the table was
 * archived by being dropped.
 */
static bool
fold_leaf(EqState *state, Reducer *reducer, const EqLeaf *leaf, const char *tenant,
		  const char *type, const char *id, int32 at_version, TimestampTz at_time,
		  MemoryContext work[2], bool *is_gone)
{
	Relation rel = try_table_open(leaf->relid, AccessShareLock);
	EqScan scan;
	ScanKeyData keys[5];
	bool go_on = true;

	*is_gone = rel == NULL;
	if (rel == NULL)
		return false;
	eq_scan_begin(&scan, rel, leaf->aggregate, GetActiveSnapshot(), 5);
	eq_aggregate_keys(&scan, keys, tenant, type, id);
	eq_scan_key(&scan, &keys[3], 4, BTGreaterStrategyNumber, F_INT4GT,
				Int32GetDatum(state->version));
	eq_scan_key(&scan, &keys[4], 4, BTLessEqualStrategyNumber, F_INT4LE,
				Int32GetDatum(at_version));
	eq_scan_start(&scan, keys, 5);
	while (go_on && eq_scan_next(&scan, ForwardScanDirection))
	{
		/* The new state goes where the one before the last was. */
		MemoryContext context = work[state->version % 2];
		MemoryContext old;
		int32 version;
		TimestampTz event_at;
		bool isnull;

		event_at = DatumGetTimestampTz(
			slot_getattr(scan.slot, EVENT_CREATED_AT, &isnull));
		version = DatumGetInt32(slot_getattr(scan.slot, EVENT_VERSION, &isnull));
		if (event_at > at_time)
		{
			go_on = false;
			break;
		}
		if (version != state->version + 1)
			missing_events(type, id, state->version + 1, version - 1);
		MemoryContextReset(context);
		old = MemoryContextSwitchTo(context);
		state->value = apply_event(reducer, state->value, scan.slot);
		MemoryContextSwitchTo(old);
		state->version = version;
		state->position = eq_event_slot_position(scan.slot);
		state->event_at = event_at;
	}
	eq_scan_end(&scan);
	table_close(rel, AccessShareLock);
	return go_on;
}

/* Folds all tables; false if one was dropped since the list of them was read. */
static bool
fold(EqState *state, const char *tenant, const char *type, const char *id,
	 int32 at_version, TimestampTz at_time)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext work[2];
	Reducer reducer;
	EqLeaf *leaves;
	int n_leaves = eq_copy_event_leaves(GetActiveSnapshot(), &leaves);
	int32 last = at_version ? at_version : PG_INT32_MAX;
	bool is_gone = false;

	memset(state, 0, sizeof(EqState));
	for (int i = 0; i < 2; i++)
		work[i] = AllocSetContextCreate(context, "event_queue fold",
										ALLOCSET_DEFAULT_SIZES);
	enter_reducer(&reducer, type);
	state->reducer = reducer.fingerprint;
	begin_from_snapshot(state, tenant, type, id, last, at_time);
	if (state->value == NULL)
		state->value = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	for (int i = n_leaves - 1; i >= 0; i--)
	{
		if ((leaves[i].tenant == NULL || strcmp(leaves[i].tenant, tenant) == 0) &&
			!fold_leaf(state, &reducer, &leaves[i], tenant, type, id, last, at_time,
					   work, &is_gone))
			break;
	}
	leave_reducer(&reducer);
	if (!is_gone)
	{
		if (at_version ? state->version < at_version : at_time != DT_NOEND)
			check_not_archived(state, tenant, type, id);
		state->value = state->version == 0 ? NULL : copy_jsonb(state->value);
	}
	for (int i = 0; i < 2; i++)
		MemoryContextDelete(work[i]);
	return !is_gone;
}

/*
 * The state of an aggregate as the active snapshot shows it.  at_version 0 and
 * at_time DT_NOEND mean the newest.
 */
void
eq_fold(EqState *state, const char *tenant, const char *type, const char *id,
		int32 at_version, TimestampTz at_time)
{
	bool done = fold(state, tenant, type, id, at_version, at_time);

	if (!done && !IsolationUsesXactSnapshot() && !IsInParallelMode())
	{
		/* The snapshots that the archive has made are seen by a newer snapshot. */
		PushActiveSnapshot(GetLatestSnapshot());
		done = fold(state, tenant, type, id, at_version, at_time);
		PopActiveSnapshot();
	}
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_EVENTS_ARCHIVED),
				 errmsg("events were archived while %s \"%s\" was read", type, id),
				 errhint("Ask again, in a new transaction.")));
}

Datum
eq_aggregate_state(PG_FUNCTION_ARGS)
{
	char *type = eq_name_argument(fcinfo, 0, "aggregate type");
	char *id = eq_name_argument(fcinfo, 1, "aggregate id");
	int32 at_version = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	TimestampTz at_time = PG_ARGISNULL(3) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(3);
	EqState state;

	if (!PG_ARGISNULL(2) && !PG_ARGISNULL(3))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("at_version and at_time exclude each other")));
	if (!PG_ARGISNULL(2) && at_version < 1)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("at_version must be at least 1")));
	eq_fold(&state, eq_tenant_argument(fcinfo, 4), type, id, at_version, at_time);
	if (at_version > state.version)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("%s \"%s\" has no version %d", type, id, at_version),
						errdetail("Its current version is %d.", state.version)));
	if (state.value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(state.value);
}

/* The caller's search_path finds the function; the owner stores it. */
Datum
eq_create_reducer(PG_FUNCTION_ARGS)
{
	char *function = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	Oid types[6] = {TEXTOID, TEXTOID, INT4OID, REGROLEOID, BOOLOID, BOOLOID};
	Datum values[6] = {0};
	char nulls[6] = {' ', ' ', ' ', ' ', ' ', ' '};
	EqSpi spi;

	values[0] = CStringGetTextDatum(eq_name_argument(fcinfo, 0, "aggregate type"));
	if (function)
	{
		(void) eq_find_function(function, EQ_FUNCTION_REDUCER, &function);
		values[1] = CStringGetTextDatum(function);
	}
	else
		nulls[1] = 'n';
	if (PG_ARGISNULL(2))
		nulls[2] = 'n';
	else
		values[2] = PG_GETARG_DATUM(2);
	values[3] = ObjectIdGetDatum(GetUserId());
	for (int i = 3; i <= 4; i++) /* or_replace, if_not_exists */
		values[i + 1] = BoolGetDatum(!PG_ARGISNULL(i) && PG_GETARG_BOOL(i));

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(
			"SELECT event_queue_internal.store_reducer($1, $2, $3, $4, $5, $6)", 6,
			types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not create the reducer");
	eq_spi_end(&spi);
	PG_RETURN_BOOL(true);
}

Datum
eq_reducer_fingerprint_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(reducer_fingerprint(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}
