/*
 * subscription.c: fetch_events and ack: events for a named consumer, from where
 * it left off.
 *
 * A subscription has a checkpoint for each of its buckets; an aggregate belongs
 * to one bucket, by a hash of its key.  With one bucket there is one consumer at
 * a time: who fetches holds the bucket until its transaction ends.  With more,
 * the sessions that fetch are members of a group and share the buckets:
 *
 * - Which member has which buckets stands in shared memory (members.c) and is
 *   looked at in each fetch: who has more than its share gives some back, who
 *   has less takes free ones.  The end of a session frees its buckets.
 * - That alone only spreads the work.  What keeps two members off one bucket is
 *   a lock on it from the first fetch or ack to the end of the transaction: a
 *   bucket that changes hands is read by its new member when the old one's
 *   acknowledgement is committed or gone.
 *
 * The checkpoint moves in the consumer's transaction, by ack.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/array.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/argument.h"
#include "compat.h"
#include "store/fetches.h"
#include "store/members.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_fetch_events);
PG_FUNCTION_INFO_V1(eq_ack);
PG_FUNCTION_INFO_V1(eq_ack_fetched);
PG_FUNCTION_INFO_V1(eq_leave_subscription);
PG_FUNCTION_INFO_V1(eq_lock_bucket);
PG_FUNCTION_INFO_V1(eq_event_bucket);

#define MAX_FETCH		100000
#define IDLE_CHECKPOINT 1000 /* positions without a wanted event */

typedef struct Subscription
{
	int32 id;
	const char *name;
	int32 n_buckets;
	EqFilter filter;
	uint64 buckets; /* this session's, locked */
	int64 checkpoints[EQ_MAX_BUCKETS];
	int32 resets[EQ_MAX_BUCKETS]; /* how often each was reset */
} Subscription;

#define PARKED_KEY (3 * (EQ_MAX_NAME + 1))

/*
 * An aggregate that is parked.  All its events are passed over, until
 * ack_parked finds none waiting and sets resume_after: to a position that no
 * batch reaches which was fetched before.  From then on a batch ends before the
 * first event above it, and when all before that is done, and none waits any
 * more, the aggregate comes as before.  So none is lost to a batch that was
 * fetched when the aggregate was still parked, and none comes out of order.
 */
typedef struct Parked
{
	char key[PARKED_KEY]; /* tenant, type and id; hash key */
	int64 resume_after;	  /* 0: not yet */
} Parked;

typedef enum Verdict
{
	NOT_WANTED,
	WANTED,
	STOP_BEFORE
} Verdict;

static int
bucket_of(const char *tenant, const char *type, const char *id, int n_buckets)
{
	pg_crc32c crc;

	if (n_buckets == 1)
		return 0;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, tenant, strlen(tenant) + 1);
	COMP_CRC32C(crc, type, strlen(type) + 1);
	COMP_CRC32C(crc, id, strlen(id));
	FIN_CRC32C(crc);
	return crc % n_buckets;
}

/* EQ025 unless there is one that the session may use. */
static void
read_subscription(Subscription *subscription, const char *name)
{
	MemoryContext context = CurrentMemoryContext;
	const char *confined = eq_confined_tenant();
	Oid types[2] = {TEXTOID, TEXTOID};
	Datum values[2] = {CStringGetTextDatum(name),
					   confined ? CStringGetTextDatum(confined) : (Datum) 0};
	char *tenant = NULL;
	Jsonb *filter = NULL;
	EqSpi spi;
	bool found;
	bool ambiguous;

	memset(subscription, 0, sizeof(Subscription));
	subscription->name = name;
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	/* As subscription_id_of does. */
	if (SPI_execute_with_args("SELECT subscription_id, buckets, tenant_id, filter"
							  " FROM event_queue.subscription"
							  " WHERE name = $1 AND ($2 IS NULL OR tenant_id = $2)"
							  " ORDER BY tenant_id NULLS FIRST",
							  2, types, values, confined ? NULL : " n", true,
							  2) != SPI_OK_SELECT)
		elog(ERROR, "could not read table subscription");
	found = SPI_processed > 0;
	ambiguous = SPI_processed == 2;
	if (found)
	{
		HeapTuple row = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(context);
		bool isnull;
		Datum json;

		subscription->id = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		subscription->n_buckets = DatumGetInt32(
			SPI_getbinval(row, desc, 2, &isnull));
		tenant = SPI_getvalue(row, desc, 3);
		json = SPI_getbinval(row, desc, 4, &isnull);
		filter = isnull ? NULL : DatumGetJsonbPCopy(json);
		MemoryContextSwitchTo(old);
	}
	eq_spi_end(&spi);
	if (ambiguous && tenant != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_AMBIGUOUS_NAME),
				 errmsg("several tenants have a subscription \"%s\"", name),
				 errhint("Use SET event_queue.tenant to say which one is meant.")));
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
				 errmsg("subscription \"%s\" does not exist", name),
				 errhint("Create it with event_queue.create_subscription(%s).",
						 quote_literal_cstr(name))));
	eq_parse_filter(&subscription->filter, filter);
	if (tenant)
		subscription->filter.tenant = tenant;
}

/*
 * Reads the filter as it is now.  It may have been replaced since the subscription was
 * read, while this session waited for a bucket: what came after that must not be passed
 * over by the old one.
 */
static void
read_filter(Subscription *subscription)
{
	static EqStatement read = {.sql = "SELECT filter FROM event_queue.subscription"
									  " WHERE subscription_id = $1",
							   .n_arguments = 1,
							   .types = {INT4OID}};
	MemoryContext context = CurrentMemoryContext;
	Datum value = Int32GetDatum(subscription->id);
	const char *tenant = subscription->filter.tenant;
	Jsonb *filter = NULL;
	EqSpi spi;
	bool found;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&read, &value, NULL);
	found = SPI_processed == 1; /* else it is dropped just now */
	if (found)
	{
		bool isnull;
		Datum json = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
								   &isnull);
		MemoryContext old = MemoryContextSwitchTo(context);

		filter = isnull ? NULL : DatumGetJsonbPCopy(json);
		MemoryContextSwitchTo(old);
	}
	eq_spi_end(&spi);
	if (!found)
		return;
	eq_parse_filter(&subscription->filter, filter);
	if (tenant)
		subscription->filter.tenant = tenant;
}

/* Locks a bucket until the end of the transaction. */
static bool
lock_bucket(const Subscription *subscription, int bucket, bool wait)
{
	return eq_lock_key_until_end(
		EQ_LOCK_BUCKET, (uint32) subscription->id * EQ_MAX_BUCKETS + bucket, wait);
}

/*
 * Reads the checkpoints of the session's buckets; all must be locked.  EQ025 if one is missing,
 * as after a restore without it: all events would come again.
 */
static void
read_checkpoints(Subscription *subscription)
{
	Oid type = INT4OID;
	Datum value = Int32GetDatum(subscription->id);
	uint64 found = 0;
	EqSpi spi;

	/* As ack writes it later: who has read it would deadlock with REINDEX. */
	LockRelationOid(eq_find_relation("subscription_bucket"), RowExclusiveLock);
	/* Not read-only: a fresh snapshot, if the transaction allows one. */
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args("SELECT bucket, position, resets"
							  " FROM event_queue_internal.subscription_bucket"
							  " WHERE subscription_id = $1",
							  1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table subscription_bucket");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		int bucket = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));

		if (bucket >= 0 && bucket < EQ_MAX_BUCKETS)
		{
			subscription->checkpoints[bucket] = DatumGetInt64(
				SPI_getbinval(row, desc, 2, &isnull));
			subscription->resets[bucket] = DatumGetInt32(
				SPI_getbinval(row, desc, 3, &isnull));
			found |= UINT64CONST(1) << bucket;
		}
	}
	eq_spi_end(&spi);
	if (subscription->buckets & ~found)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
			 errmsg("the checkpoint of subscription \"%s\" is missing",
					subscription->name),
			 errhint(
				 "If no restore is under way, call event_queue.reset_subscription with the position up to which its events are done.")));
}

/* Is the aggregate no longer parked, since none of its events waits any more? */
static bool
unpark_if_done(const Subscription *subscription, Datum tenant, Datum type, Datum id)
{
	static EqStatement unpark = {
		.sql = "SELECT event_queue_internal.unpark_if_done($1, $2, $3, $4)",
		.n_arguments = 4,
		.types = {INT4OID, TEXTOID, TEXTOID, TEXTOID}};
	Datum values[4] = {Int32GetDatum(subscription->id), tenant, type, id};
	EqSpi spi;
	bool isnull;
	bool done;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&unpark, values, NULL);
	done = DatumGetBool(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	eq_spi_end(&spi);
	return done;
}

/*
 * The aggregates that are parked, or NULL if there is none.  One that was only waiting for the
 * checkpoint to be where it is now comes back, though no new event of it asks for that.
 */
static HTAB *
read_parked(const Subscription *subscription)
{
	HASHCTL ctl = {.keysize = PARKED_KEY,
				   .entrysize = sizeof(Parked),
				   .hcxt = CurrentMemoryContext};
	Oid type = INT4OID;
	Datum value = Int32GetDatum(subscription->id);
	HTAB *parked = NULL;
	bool may_unpark = !XactReadOnly && !IsolationUsesXactSnapshot();
	SPITupleTable *rows;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args("SELECT tenant_id, aggregate_type, aggregate_id,"
							  " coalesce(resume_after, 0)"
							  " FROM event_queue_internal.subscription_parked"
							  " WHERE subscription_id = $1",
							  1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table subscription_parked");
	if (SPI_processed > 0)
		parked = hash_create("event_queue parked aggregates", SPI_processed, &ctl,
							 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	rows = SPI_tuptable;
	for (uint64 i = 0; i < rows->numvals; i++)
	{
		HeapTuple row = rows->vals[i];
		char key[PARKED_KEY];
		char *parts[3];
		Datum names[3];
		int64 resume_after;
		bool isnull;
		int bucket;
		Parked *entry;

		for (int n = 0; n < 3; n++)
		{
			names[n] = SPI_getbinval(row, rows->tupdesc, n + 1, &isnull);
			parts[n] = TextDatumGetCString(names[n]);
		}
		resume_after = DatumGetInt64(SPI_getbinval(row, rows->tupdesc, 4, &isnull));
		bucket = bucket_of(parts[0], parts[1], parts[2], subscription->n_buckets);
		if (may_unpark && resume_after != 0 &&
			(subscription->buckets & (UINT64CONST(1) << bucket)) != 0 &&
			resume_after <= subscription->checkpoints[bucket] &&
			unpark_if_done(subscription, names[0], names[1], names[2]))
			continue;
		snprintf(key, sizeof(key), "%s\n%s\n%s", parts[0], parts[1], parts[2]);
		entry = hash_search(parked, key, HASH_ENTER, NULL);
		entry->resume_after = resume_after;
	}
	eq_spi_end(&spi);
	return parked;
}

/* Is the event for this session, and above its bucket's checkpoint? */
static Verdict
judge(const Subscription *subscription, HTAB *parked, TupleTableSlot *slot)
{
	int64 position = eq_event_slot_position(slot);
	bool isnull;
	char *tenant;
	char *type;
	char *id;
	char key[PARKED_KEY];
	int bucket = 0;
	Parked *entry = NULL;

	if (subscription->n_buckets > 1 || parked)
	{
		tenant = TextDatumGetCString(slot_getattr(slot, EVENT_TENANT, &isnull));
		type = TextDatumGetCString(
			slot_getattr(slot, EVENT_AGGREGATE_TYPE, &isnull));
		id = TextDatumGetCString(slot_getattr(slot, EVENT_AGGREGATE_ID, &isnull));
		bucket = bucket_of(tenant, type, id, subscription->n_buckets);
		if ((subscription->buckets & (UINT64CONST(1) << bucket)) == 0)
			return NOT_WANTED;
		snprintf(key, sizeof(key), "%s\n%s\n%s", tenant, type, id);
		if (parked)
			entry = hash_search(parked, key, HASH_FIND, NULL);
	}
	if (position <= subscription->checkpoints[bucket])
		return NOT_WANTED;
	if (entry == NULL)
		return WANTED;
	return entry->resume_after != 0 && position > entry->resume_after ? STOP_BEFORE
																	  : NOT_WANTED;
}

/* All wanted events before this one of a parked aggregate are done. */
static bool
unpark_before(const Subscription *subscription, TupleTableSlot *slot)
{
	slot_getallattrs(slot);
	return unpark_if_done(subscription, slot->tts_values[EVENT_TENANT - 1],
						  slot->tts_values[EVENT_AGGREGATE_TYPE - 1],
						  slot->tts_values[EVENT_AGGREGATE_ID - 1]);
}

static void
move_checkpoints(const Subscription *subscription, int64 position)
{
	Oid types[3] = {INT4OID, INT4ARRAYOID, INT8OID};
	Datum buckets[EQ_MAX_BUCKETS];
	Datum values[3];
	int n = 0;
	EqSpi spi;

	for (int b = 0; b < subscription->n_buckets; b++)
	{
		if (subscription->buckets & (UINT64CONST(1) << b))
			buckets[n++] = Int32GetDatum(b);
	}
	values[0] = Int32GetDatum(subscription->id);
	values[1] = PointerGetDatum(
		construct_array(buckets, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	values[2] = Int64GetDatum(position);
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(
			"UPDATE event_queue_internal.subscription_bucket"
			" SET position = $3, moved_at = pg_catalog.clock_timestamp()"
			" WHERE subscription_id = $1 AND bucket = ANY ($2) AND position < $3",
			3, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write table subscription_bucket");
	eq_spi_end(&spi);
}

/* Locks what the session may read now. */
static void
take_buckets(Subscription *subscription)
{
	uint64 mine;

	if (subscription->n_buckets == 1)
	{
		(void) lock_bucket(subscription, 0, true);
		subscription->buckets = 1;
		return;
	}
	mine = eq_share_buckets(subscription->id, subscription->filter.tenant,
							subscription->n_buckets);
	for (int b = 0; b < subscription->n_buckets; b++)
	{
		/* The member that had the bucket before may still hold its lock. */
		if ((mine & (UINT64CONST(1) << b)) && lock_bucket(subscription, b, false))
			subscription->buckets |= UINT64CONST(1) << b;
	}
}

static int64
lowest_checkpoint(const Subscription *subscription)
{
	int64 lowest = PG_INT64_MAX;

	for (int b = 0; b < subscription->n_buckets; b++)
	{
		if (subscription->buckets & (UINT64CONST(1) << b))
			lowest = Min(lowest, subscription->checkpoints[b]);
	}
	return lowest;
}

/*
 * One batch from the lowest checkpoint on; *seen is how far it reaches.  *again
 * is set if an aggregate was unparked and nothing was fetched yet.
 */
static int
fetch_batch(Subscription *subscription, int limit, Tuplestorestate *into,
			int64 *seen, bool *again)
{
	HTAB *parked = read_parked(subscription);
	int64 watermark = eq_watermark();
	MemoryContext row = AllocSetContextCreate(
		CurrentMemoryContext, "event_queue event", ALLOCSET_DEFAULT_SIZES);
	EqReader *reader;
	TupleTableSlot *slot;
	int64 stop = 0;
	int n_events = 0;

	*again = false;
	read_filter(subscription); /* after the watermark */
	reader = eq_reader_begin(*seen, watermark, &subscription->filter);
	while (n_events < limit && (slot = eq_reader_next(reader)) != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(row);
		Verdict verdict = judge(subscription, parked, slot);

		MemoryContextSwitchTo(old);
		MemoryContextReset(row);
		if (verdict == STOP_BEFORE)
		{
			stop = eq_event_slot_position(slot) - 1;
			if (n_events == 0 && !XactReadOnly)
			{
				move_checkpoints(subscription, stop);
				*again = unpark_before(subscription, slot);
			}
			break;
		}
		if (verdict == WANTED)
		{
			tuplestore_puttupleslot(into, slot);
			n_events++;
		}
	}
	*seen = eq_reader_end(reader);
	if (stop > 0)
		*seen = stop;
	MemoryContextDelete(row);
	return n_events;
}

Datum
eq_fetch_events(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char *name = eq_name_argument(fcinfo, 0, "subscription name");
	int limit = PG_ARGISNULL(1) ? 100 : PG_GETARG_INT32(1);
	Subscription subscription;
	EqFetched *fetch;
	int64 after;
	int64 seen;
	int n_events;
	bool again;

	if (limit < 1 || limit > MAX_FETCH)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("max_events must be between 1 and %d", MAX_FETCH)));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_EQ_NOT_SUPPORTED_HERE),
				 errmsg("cannot fetch events of a subscription on a standby"),
				 errhint("Its checkpoint is kept on the primary; read a standby"
						 " with event_queue.read_all.")));
	/* Half of a restore's events would be fetched, and the others be skipped. */
	eq_require_active();
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	read_subscription(&subscription, name);
	take_buckets(&subscription);
	fetch = eq_find_fetch(subscription.id, HASH_ENTER);
	fetch->buckets = subscription.buckets;
	fetch->up_to = 0;
	fetch->unnamed = 0;
	fetch->in = GetCurrentSubTransactionId();
	if (subscription.buckets == 0)
		return (Datum) 0;
	do
	{
		read_checkpoints(&subscription);
		after = lowest_checkpoint(&subscription);
		seen = after;
		n_events = fetch_batch(&subscription, limit, rsinfo->setResult, &seen,
							   &again);
	} while (again);
	fetch->up_to = seen;
	fetch->unnamed = seen;
	memcpy(fetch->resets, subscription.resets, sizeof(fetch->resets));

	/* Nothing for it for a long while: the next fetch need not look again. */
	if (n_events == 0 && seen - after >= IDLE_CHECKPOINT && !XactReadOnly)
		move_checkpoints(&subscription, seen);
	return (Datum) 0;
}

/*
 * EQ029 if a bucket was reset since the events were fetched: what reset_subscription wants to
 * come again would be acknowledged.
 */
static void
check_not_reset(Subscription *subscription, const EqFetched *fetch)
{
	read_checkpoints(subscription);
	for (int b = 0; b < subscription->n_buckets; b++)
	{
		if ((subscription->buckets & (UINT64CONST(1) << b)) != 0 &&
			subscription->resets[b] != fetch->resets[b])
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_NOT_FETCHED),
				 errmsg(
					 "subscription \"%s\" was reset since its events were fetched",
					 subscription->name),
				 errhint("Call fetch_events again.")));
	}
}

/* Moves the checkpoints of buckets that another member may hold. */
static void
move_locked(Subscription *subscription, const EqFetched *fetch, int64 position)
{
	for (int b = 0; b < subscription->n_buckets; b++)
	{
		if (subscription->buckets & (UINT64CONST(1) << b))
			(void) lock_bucket(subscription, b, true);
	}
	/* In the transaction that fetched they are locked since; see reset_subscription. */
	if (subscription->n_buckets > 1 && fetch && fetch->in == InvalidSubTransactionId)
		check_not_reset(subscription, fetch);
	move_checkpoints(subscription, position);
}

Datum
eq_ack(PG_FUNCTION_ARGS)
{
	char *name = eq_name_argument(fcinfo, 0, "subscription name");
	int64 position = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	Subscription subscription;
	EqFetched *fetch;
	int64 highest;

	PreventCommandIfReadOnly("ack");
	read_subscription(&subscription, name);
	fetch = eq_find_fetch(subscription.id, HASH_FIND);
	if (subscription.n_buckets == 1)
	{
		/* Any session may: through a pooler it may be another one. */
		highest = eq_watermark();
		subscription.buckets = 1;
	}
	else
	{
		highest = fetch ? fetch->up_to : 0;
		subscription.buckets = fetch ? fetch->buckets : 0;
	}
	if (position < 0 || position > highest)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_NOT_FETCHED),
			 errmsg("position " INT64_FORMAT " was not fetched", position),
			 errdetail(
				 "The highest position that can be acknowledged is " INT64_FORMAT
				 ".",
				 highest),
			 errhint(
				 "Acknowledge the position of an event that fetch_events returned to this session.")));
	move_locked(&subscription, fetch, position);
	PG_RETURN_BOOL(true);
}

/* ack of what was fetched. */
Datum
eq_ack_fetched(PG_FUNCTION_ARGS)
{
	char *name = eq_name_argument(fcinfo, 0, "subscription name");
	Subscription subscription;
	EqFetched *fetch;

	PreventCommandIfReadOnly("ack");
	read_subscription(&subscription, name);
	fetch = eq_find_fetch(subscription.id, HASH_FIND);

	/*
	 * With one bucket, another consumer may have had it since the transaction
	 * that fetched, or this session may be another client's, through a pooler.
	 */
	if (fetch == NULL || fetch->unnamed < 0 ||
		(subscription.n_buckets == 1 && fetch->in == InvalidSubTransactionId))
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_NOT_FETCHED),
			 errmsg("nothing of subscription \"%s\" was fetched in this %s", name,
					subscription.n_buckets == 1 ? "transaction" : "session"),
			 errdetail("What was fetched and rolled back does not count."),
			 errhint(
				 "Call fetch_events, do the work and call ack in one transaction, or name a position.")));
	subscription.buckets = fetch->buckets;
	move_locked(&subscription, fetch, fetch->unnamed);
	PG_RETURN_BOOL(true);
}

/* Leaves the group at once, and not at the end of the session. */
Datum
eq_leave_subscription(PG_FUNCTION_ARGS)
{
	char *name = eq_name_argument(fcinfo, 0, "subscription name");
	Subscription subscription;

	read_subscription(&subscription, name);
	eq_forget_fetch(subscription.id);
	eq_leave_group(subscription.id);
	PG_RETURN_BOOL(true);
}

/* Locks a bucket as fetch_events does. */
Datum
eq_lock_bucket(PG_FUNCTION_ARGS)
{
	Subscription subscription = {.id = PG_GETARG_INT32(0)};
	const char *tenant = eq_confined_tenant();
	const char *query =
		"SELECT count(*) FROM event_queue.subscription WHERE subscription_id = $1";

	if (tenant)
		query = psprintf("%s AND tenant_id = %s", query, quote_literal_cstr(tenant));
	if (eq_query_int64(query, subscription.id) == 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
						errmsg("subscription %d does not exist", subscription.id)));
	(void) lock_bucket(&subscription, PG_GETARG_INT32(1), true);
	PG_RETURN_BOOL(true);
}

/* The bucket of an aggregate in a subscription with so many. */
Datum
eq_event_bucket(PG_FUNCTION_ARGS)
{
	if (PG_GETARG_INT32(3) < 1 || PG_GETARG_INT32(3) > EQ_MAX_BUCKETS)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("buckets must be between 1 and %d", EQ_MAX_BUCKETS)));
	PG_RETURN_INT32(bucket_of(
		text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)),
		text_to_cstring(PG_GETARG_TEXT_PP(2)), PG_GETARG_INT32(3)));
}
