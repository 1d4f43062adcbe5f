/*
 * append.c: one event to the end of one aggregate.
 *
 * Two appenders of one aggregate take turns: each looks up the newest version
 * with a dirty snapshot, which also sees rows of open transactions, and if the
 * newest one is another transaction's and open, waits for that to end and looks
 * again.  From look-up to insert a lock on the aggregate's key is held, so that
 * no two sessions find the same version and the unique index never has to
 * complain.  Since the second appender waits for the first one's end, versions
 * of an aggregate have positions in the same order.
 *
 * An event id given by the caller makes the call safe to repeat; the same kind
 * of lock and look-up protects it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "event_queue.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_append);
PG_FUNCTION_INFO_V1(eq_refuse_change);

/* What the caller expects of the aggregate's version; >= 0: exactly this one. */
#define EXPECT_ANY	  (-1)
#define EXPECT_EXISTS (-2)

typedef struct Event
{
	const char *tenant;
	char *aggregate_type;
	char *aggregate_id;
	char *event_type;
	Jsonb *data;
	Jsonb *metadata;
	pg_uuid_t id;
	bool id_given;
	int64 position;
	int32 version;
	bool duplicate;
} Event;

/* EQ005 if the payload is larger than event_queue.max_payload. */
void
eq_check_payload(const char *what, Jsonb *payload)
{
	Size size = VARSIZE(payload);

	if (size > (Size) eq_max_payload_kb * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_PAYLOAD_TOO_LARGE),
				 errmsg("%s is too large", what),
				 errdetail("It has %zu bytes, event_queue.max_payload allows %zu.",
						   size, (Size) eq_max_payload_kb * 1024),
				 errhint("Store large documents elsewhere and refer to them.")));
}

/* Reads the argument expected_version, a text or a number. */
static int32
parse_expected_version(FunctionCallInfo fcinfo, int argno)
{
	char *word;
	int32 version = -1;

	if (PG_ARGISNULL(argno))
		return EXPECT_ANY;
	if (get_fn_expr_argtype(fcinfo->flinfo, argno) == INT4OID)
	{
		version = PG_GETARG_INT32(argno);
		word = psprintf("%d", version);
	}
	else
	{
		char *end;
		long number;

		word = text_to_cstring(PG_GETARG_TEXT_PP(argno));
		if (strcmp(word, "any") == 0)
			return EXPECT_ANY;
		if (strcmp(word, "no_stream") == 0)
			return 0;
		if (strcmp(word, "exists") == 0)
			return EXPECT_EXISTS;
		errno = 0;
		number = strtol(word, &end, 10);
		if (word[0] >= '0' && word[0] <= '9' && *end == '\0' && errno == 0 &&
			number <= PG_INT32_MAX)
			version = number;
	}
	if (version < 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
			 errmsg("invalid expected version \"%s\"", word),
			 errhint(
				 "Give a version from 0, \"any\", \"no_stream\" or \"exists\".")));
	return version;
}

static char *
name_argument(FunctionCallInfo fcinfo, int argno, const char *what)
{
	char *value = PG_ARGISNULL(argno) ? NULL
									  : text_to_cstring(PG_GETARG_TEXT_PP(argno));

	eq_check_name(what, value, EQ_MAX_NAME);
	return value;
}

static Jsonb *
jsonb_argument(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	return PG_GETARG_JSONB_P(argno);
}

static uint32
hash_text(const char *text, uint32 hash)
{
	return hash_combine(
		hash, DatumGetUInt32(hash_any((const unsigned char *) text, strlen(text))));
}

/* If a dirty scan met another open transaction: the one to wait for. */
static TransactionId
open_transaction(SnapshotData *dirty)
{
	return TransactionIdIsValid(dirty->xmin) ? dirty->xmin : dirty->xmax;
}

/*
 * Looks for an event with this id.  True if there is one, with its place in
 * the event; *open is set if it belongs to another open transaction.
 */
static bool
find_event_id(EqTable *store, Event *event, TransactionId *open)
{
	SnapshotData dirty;
	EqScan scan;
	ScanKeyData keys[2];
	bool found;

	InitDirtySnapshot(dirty);
	eq_scan_begin(&scan, store->rel, EQ_EVENT_STORE_ID, &dirty, 2);
	eq_scan_key(&scan, &keys[0], 1, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(&event->id));
	eq_scan_key(&scan, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(event->tenant));
	eq_scan_start(&scan, keys, 2);
	found = eq_scan_next(&scan, ForwardScanDirection);
	*open = found ? open_transaction(&dirty) : InvalidTransactionId;

	if (found && !TransactionIdIsValid(*open))
	{
		Jsonb *data;

		slot_getallattrs(scan.slot);
		data = DatumGetJsonbP(scan.slot->tts_values[EVENT_DATA - 1]);
		if (strcmp(
				TextDatumGetCString(scan.slot->tts_values[EVENT_AGGREGATE_TYPE - 1]),
				event->aggregate_type) != 0 ||
			strcmp(
				TextDatumGetCString(scan.slot->tts_values[EVENT_AGGREGATE_ID - 1]),
				event->aggregate_id) != 0 ||
			strcmp(TextDatumGetCString(scan.slot->tts_values[EVENT_TYPE - 1]),
				   event->event_type) != 0 ||
			compareJsonbContainers(&data->root, &event->data->root) != 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_EVENT_ID_CONFLICT),
				 errmsg("event id is used by another event"),
				 errdetail("Event %s stands at position " INT64_FORMAT
						   " with another aggregate, type or data.",
						   DatumGetCString(DirectFunctionCall1(
							   uuid_out, UUIDPGetDatum(&event->id))),
						   DatumGetInt64(scan.slot->tts_values[EVENT_POSITION - 1])),
				 errhint("A retry must repeat the event unchanged.")));
		event->position = DatumGetInt64(scan.slot->tts_values[EVENT_POSITION - 1]);
		event->version = DatumGetInt32(scan.slot->tts_values[EVENT_VERSION - 1]);
		event->duplicate = true;
	}
	eq_scan_end(&scan);
	return found;
}

/* The aggregate's newest version, 0 if it has none. */
static int32
find_version(EqTable *store, Event *event, TransactionId *open)
{
	SnapshotData dirty;
	EqScan scan;
	ScanKeyData keys[3];
	int32 version = 0;

	*open = InvalidTransactionId;
	InitDirtySnapshot(dirty);
	eq_scan_begin(&scan, store->rel, EQ_EVENT_STORE_AGGREGATE, &dirty, 3);
	eq_scan_key(&scan, &keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(event->aggregate_id));
	eq_scan_key(&scan, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(event->aggregate_type));
	eq_scan_key(&scan, &keys[2], 3, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(event->tenant));
	eq_scan_start(&scan, keys, 3);
	if (eq_scan_next(&scan, BackwardScanDirection))
	{
		bool isnull;

		*open = open_transaction(&dirty);
		version = DatumGetInt32(slot_getattr(scan.slot, EVENT_VERSION, &isnull));
	}
	eq_scan_end(&scan);
	return version;
}

static void
check_expected_version(const Event *event, int32 expected, int32 current)
{
	StringInfoData detail;
	char *wanted;

	if (expected == EXPECT_ANY || expected == current ||
		(expected == EXPECT_EXISTS && current > 0))
		return;

	wanted = expected == EXPECT_EXISTS ? "\"exists\"" : psprintf("%d", expected);
	initStringInfo(&detail);
	appendStringInfoString(&detail, "{\"aggregate_type\": ");
	escape_json(&detail, event->aggregate_type);
	appendStringInfoString(&detail, ", \"aggregate_id\": ");
	escape_json(&detail, event->aggregate_id);
	appendStringInfo(&detail, ", \"expected_version\": %s, \"current_version\": %d}",
					 wanted, current);
	ereport(ERROR, (errcode(ERRCODE_EQ_WRONG_EXPECTED_VERSION),
					errmsg("wrong expected version of %s \"%s\"",
						   event->aggregate_type, event->aggregate_id),
					errdetail_internal("%s", detail.data),
					errhint("Read the aggregate again and decide anew.")));
}

static void
insert_event(EqTable *store, Event *event, int32 version)
{
	Datum values[EVENT_COLUMNS];
	bool nulls[EVENT_COLUMNS] = {false};
	TimestampTz now = GetCurrentTimestamp();

	if (version == PG_INT32_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("%s \"%s\" has too many events",
							   event->aggregate_type, event->aggregate_id)));
	if (!event->id_given)
		eq_make_uuid_v7(&event->id, now);
	event->version = version + 1;
	event->position = eq_take_position();

	values[EVENT_POSITION - 1] = Int64GetDatum(event->position);
	values[EVENT_ID - 1] = UUIDPGetDatum(&event->id);
	values[EVENT_TENANT - 1] = CStringGetTextDatum(event->tenant);
	values[EVENT_AGGREGATE_TYPE - 1] = CStringGetTextDatum(event->aggregate_type);
	values[EVENT_AGGREGATE_ID - 1] = CStringGetTextDatum(event->aggregate_id);
	values[EVENT_VERSION - 1] = Int32GetDatum(event->version);
	values[EVENT_TYPE - 1] = CStringGetTextDatum(event->event_type);
	values[EVENT_DATA - 1] = JsonbPGetDatum(event->data);
	values[EVENT_METADATA - 1] = JsonbPGetDatum(event->metadata);
	values[EVENT_CREATED_AT - 1] = TimestampTzGetDatum(now);
	eq_table_insert(store, values, nulls);
}

static void
append_event(Event *event, int32 expected)
{
	EqTable store;
	uint32 id_hash = hash_any(event->id.data, UUID_LEN);
	uint32 aggregate_hash = hash_text(
		event->aggregate_id,
		hash_text(event->aggregate_type, hash_text(event->tenant, 0)));
	TransactionId open;

	eq_table_open(&store, EQ_EVENT_STORE);
	for (;;)
	{
		int32 version;

		CHECK_FOR_INTERRUPTS();
		open = InvalidTransactionId;
		if (event->id_given)
		{
			eq_lock_key(EQ_LOCK_EVENT_ID, id_hash);
			if (find_event_id(&store, event, &open) && !TransactionIdIsValid(open))
			{
				eq_unlock_key(EQ_LOCK_EVENT_ID, id_hash);
				break;
			}
		}
		if (!TransactionIdIsValid(open))
		{
			eq_lock_key(EQ_LOCK_AGGREGATE, aggregate_hash);
			version = find_version(&store, event, &open);
			if (!TransactionIdIsValid(open))
			{
				check_expected_version(event, expected, version);
				insert_event(&store, event, version);
			}
			eq_unlock_key(EQ_LOCK_AGGREGATE, aggregate_hash);
		}
		if (event->id_given)
			eq_unlock_key(EQ_LOCK_EVENT_ID, id_hash);
		if (!TransactionIdIsValid(open))
			break;

		/* As a unique index does; a deadlock is found and reported as one. */
		XactLockTableWait(open, NULL, NULL, XLTW_None);
	}
	eq_table_close(&store);
	CommandCounterIncrement();
}

Datum
eq_append(PG_FUNCTION_ARGS)
{
	Event event = {0};
	int32 expected;
	TupleDesc desc;
	Datum values[4];
	bool nulls[4] = {false};

	event.aggregate_type = name_argument(fcinfo, 0, "aggregate type");
	event.aggregate_id = name_argument(fcinfo, 1, "aggregate id");
	event.event_type = name_argument(fcinfo, 2, "event type");
	event.data = jsonb_argument(fcinfo, 3);
	expected = parse_expected_version(fcinfo, 4);
	if (!PG_ARGISNULL(5))
	{
		event.id = *PG_GETARG_UUID_P(5);
		event.id_given = true;
	}
	event.metadata = jsonb_argument(fcinfo, 6);
	event.tenant = eq_resolve_tenant(
		PG_ARGISNULL(7) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(7)));
	eq_check_payload("event data", event.data);
	eq_check_payload("event metadata", event.metadata);
	if (!JB_ROOT_IS_OBJECT(event.metadata))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("event metadata must be a JSON object")));

	append_event(&event, expected);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum(event.position);
	values[1] = Int32GetDatum(event.version);
	values[2] = UUIDPGetDatum(&event.id);
	values[3] = BoolGetDatum(event.duplicate);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* Trigger: the append-only guard. */
Datum
eq_refuse_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *what;

	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "refuse_change: not called by trigger manager");
	what = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)	? "UPDATE"
		   : TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "DELETE"
														: "TRUNCATE";
	ereport(LOG, (errmsg("refused %s of event_queue.event_store by role \"%s\"",
						 what, GetUserNameFromId(GetUserId(), true))));
	ereport(ERROR,
			(errcode(ERRCODE_EQ_APPEND_ONLY), errmsg("cannot %s events", what),
			 errdetail("The event store is append-only."),
			 errhint("Append an event that corrects the earlier one.")));
	PG_RETURN_POINTER(NULL);
}
