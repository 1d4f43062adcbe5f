/*
 * activation.c: keeps a restored or copied store out of service until activate().
 *
 * A dump is loaded table by table: jobs and handlers are there before the tables
 * that they work on.  And a copy that is complete would send the messages of the
 * original a second time.  So the table activation says where the store is in
 * service: the row is in each dump and each copy, and is written by CREATE
 * EXTENSION and activate() only (and where activate_copies is on).  The store is active if there is a row, and no
 * row is of another database.  In all other cases no worker does anything, and
 * whatever takes a position or a job raises EQ036.
 *
 * The identity is made of the system identifier, the OID of the database, and
 * that of the table itself: a dump that is restored into the database it came
 * from makes a new table.  The timeline is not in it: a promoted standby goes on
 * by itself (generation.c gives it a generation of its own).
 *
 * A CREATE EXTENSION that comes from a dump writes no row.  It is known by
 * check_function_bodies, which each script of pg_dump and each connection of
 * pg_restore switches off first, together with row_security or (pg_dump
 * --enable-row-security) an empty search_path.  So a restore that is not complete has no row
 * or, later, the one of the original.  Data that such a session brings into a store that
 * is in service take its row away before the first of them is there.
 *
 * That the store is active is remembered in shared memory for as long as no
 * configuration changes (a trigger on the table is among what says so), and
 * looked up by the scheduler at each sweep all the same.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/database.h"

/* The state of a database in shared memory, by the number of its entry. */
typedef struct Activation
{
	pg_atomic_uint32 active_at;	  /* config_generation + 1 */
	pg_atomic_uint64 restored_at; /* when a restore was last at work */
} Activation;

static Activation *activations = NULL;

PG_FUNCTION_INFO_V1(eq_created);
PG_FUNCTION_INFO_V1(eq_activate);
PG_FUNCTION_INFO_V1(eq_activation_state);
PG_FUNCTION_INFO_V1(eq_keep_builtin_settings);
PG_FUNCTION_INFO_V1(eq_session_restores);
PG_FUNCTION_INFO_V1(eq_end_service_while_loaded);

static Size
activations_size(void)
{
	return mul_size(eq_max_databases, sizeof(Activation));
}

static void
attach_activations(void *memory, LWLockPadded *locks, bool is_new)
{
	activations = memory;
	for (int i = 0; i < eq_max_databases && is_new; i++)
	{
		pg_atomic_init_u32(&activations[i].active_at, 0);
		pg_atomic_init_u64(&activations[i].restored_at, 0);
	}
}

static void
begin_database(int number)
{
	pg_atomic_write_u32(&activations[number].active_at, 0);
	pg_atomic_write_u64(&activations[number].restored_at, 0);
}

const EqSharedPart eq_activations_part = {
	.name = "event_queue activations",
	.size = activations_size,
	.attach = attach_activations,
	.begin_database = begin_database,
};

#define QUIET_US                                                                    \
	(30 * USECS_PER_SEC) /* without a restore, before activate_copies acts */

/* This CREATE EXTENSION comes from a dump. */
static bool created_by_restore = false;

/* Does this session run a script of pg_dump, or is it one of pg_restore's? */
static bool
session_restores(void)
{
	return !check_function_bodies &&
		   (!row_security || namespace_search_path[0] == '\0');
}

/*
 * For triggers: is the row one of a dump?  False for rows that a function writes as the owner,
 * whatever the settings of the caller's session, also where the session is the owner's own, as
 * a worker's is, and the function belongs to another role, as a handler.
 */
Datum
eq_session_restores(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(session_restores() && !InLocalUserIdChange());
}

/* For rows of users' tables: is a dump being restored, into a store that is not in service? */
bool
eq_in_restore(void)
{
	return session_restores() && eq_activation(false) != EQ_ACTIVE;
}

static int64
identity_here(void)
{
	uint64 identity[3] = {GetSystemIdentifier(), MyDatabaseId,
						  eq_relation_oid(EQ_ACTIVATION)};

	return (int64) DatumGetUInt64(
		hash_any_extended((unsigned char *) identity, sizeof(identity), 0));
}

/* Reads the table, in a snapshot of its own. */
static EqActivation
look_up(void)
{
	static EqStatement statement = {
		"SELECT CASE WHEN count(*) = 0 THEN 0 WHEN bool_and(identity = $1) THEN 1"
		" ELSE 2 END FROM event_queue_internal.activation",
		1,
		{INT8OID},
		NULL};
	EqSpi spi;
	Datum value = Int64GetDatum(identity_here());
	EqActivation found;
	bool isnull;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&statement, &value, NULL);
	found = (EqActivation) DatumGetInt32(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	eq_spi_end(&spi);
	return found;
}

static Activation *
activation_of(EqDatabase *db)
{
	return &activations[eq_database_number(db)];
}

/* Was the store seen to be in service since the configuration changed? */
static bool
is_known_active(EqDatabase *db)
{
	return pg_atomic_read_u32(&activation_of(db)->active_at) ==
		   pg_atomic_read_u32(&db->config_generation) + 1;
}

/*
 * Returns whether this store is in service.  anew: reads the table, since rows may have been
 * written past the triggers.
 */
EqActivation
eq_activation(bool anew)
{
	static LocalTransactionId seen_in = InvalidLocalTransactionId;
	static SubTransactionId seen_by = InvalidSubTransactionId;
	EqDatabase *db = eq_database();
	uint32 generation = pg_atomic_read_u32(&db->config_generation);
	EqActivation found;

	if (!anew && (is_known_active(db) ||
				  (seen_in == EQ_MY_LXID && seen_in != InvalidLocalTransactionId &&
				   SubTransactionIsActive(seen_by))))
		return EQ_ACTIVE;
	pg_memory_barrier();
	/* Nothing waits for who has the table locked: it is as it was when last seen. */
	if (!ConditionalLockRelationOid(eq_relation_oid(EQ_ACTIVATION),
									AccessShareLock) &&
		pg_atomic_read_u32(&activation_of(db)->active_at) != 0)
		return EQ_ACTIVE;
	found = look_up();
	if (found != EQ_ACTIVE)
		pg_atomic_write_u32(&activation_of(db)->active_at, 0);
	else if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
	{
		/* This (sub)transaction may have written the row, and may abort. */
		seen_in = EQ_MY_LXID;
		seen_by = GetCurrentSubTransactionId();
	}
	else
		pg_atomic_write_u32(&activation_of(db)->active_at, generation + 1);
	return found;
}

/* EQ036 unless the store is in service here. */
void
eq_require_active(void)
{
	EqActivation state = eq_activation(false);

	if (state == EQ_ACTIVE)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_NOT_ACTIVATED),
		 errmsg("this event store is a copy that is not in service"),
		 state == EQ_NOT_LOADED
			 ? errdetail(
				   "It was created by the script of a dump whose data is not loaded, or is the target of a logical replication subscription.")
			 : errdetail("It was restored from a dump or copied from another"
						 " database."),
		 errhint(
			 "If the restore is complete and its jobs, rules and schedules should run here: SELECT event_queue.activate().")));
}

/* Runs a statement between eq_spi_begin and eq_spi_end. */
static void
run(const char *sql)
{
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not execute: %s", sql);
}

static bool
finds(const char *sql)
{
	if (SPI_execute(sql, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not execute: %s", sql);
	return SPI_processed > 0;
}

/* A dump is loaded into a store that is in service: it is out of service from here on. */
static void
end_service(void)
{
	EqSpi spi;

	if (creating_extension || eq_activation(true) != EQ_ACTIVE)
		return;
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	run("DELETE FROM event_queue_internal.activation");
	eq_spi_end(&spi);
	ereport(
		WARNING,
		(errmsg("the event store is out of service until event_queue.activate()"),
		 errdetail(
			 "Rows of a dump are loaded into it.  Their jobs, handlers, rules and schedules come to the queues that have their queue_id here, whatever names these have in the dump."),
		 errhint(
			 "Unless all of the dump is loaded, compare table event_queue.queue of both before you activate.")));
}

/*
 * Notes that COPY of a table begins, or has ended, past a rollback: a bit for each table in
 * the value of the sequence failed_loads, by its place among the tables that dumps have.  (An
 * INSERT of a role that is missing fails while it is analyzed: nothing hears of it.)
 */
static void
note_load(Oid table, bool begins)
{
	static EqStatement statement = {
		"SELECT pg_catalog.count(*) FILTER (WHERE c.oid < $1), coalesce(pg_catalog.bool_or(c.oid = $1), false)"
		" FROM pg_catalog.pg_extension e,"
		" pg_catalog.unnest(e.extconfig) x (oid), pg_catalog.pg_class c"
		" WHERE e.extname = '" EQ_EXTENSION
		"' AND c.oid = x.oid AND c.relkind = 'r'",
		1,
		{OIDOID},
		NULL};
	EqSpi spi;
	Datum value = ObjectIdGetDatum(table);
	bool isnull;
	bool is_in_dumps;
	int64 bit;
	int64 failed;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&statement, &value, NULL);
	bit = INT64CONST(1) << (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
														SPI_tuptable->tupdesc, 1,
														&isnull)) %
							62);
	is_in_dumps = DatumGetBool(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	eq_spi_end(&spi);
	if (!is_in_dumps)
		return;
	eq_lock_key(EQ_LOCK_POSITIONS, 1);
	failed = eq_query_int64(
		"SELECT last_value FROM event_queue_internal.failed_loads", 0);
	eq_set_sequence(EQ_FAILED_LOADS, begins ? failed | bit : failed & ~bit, true);
	eq_unlock_key(EQ_LOCK_POSITIONS, 1);
}

/*
 * Triggers of tables that such a session writes, before and after: not of what a function
 * does in it.
 */
Datum
eq_end_service_while_loaded(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("end_service_while_loaded: not called by trigger manager")));
	if (TRIGGER_FIRED_BEFORE(trigger->tg_event) && ActivePortal &&
		(ActivePortal->commandTag == CMDTAG_INSERT ||
		 ActivePortal->commandTag == CMDTAG_COPY))
		end_service();
	PG_RETURN_POINTER(NULL);
}

/* A schema of ours. */
static bool
is_own_schema(Oid schema)
{
	return OidIsValid(schema) && (schema == get_namespace_oid(EQ_SCHEMA, true) ||
								  schema == get_namespace_oid(EQ_INTERNAL, true));
}

/*
 * The table of ours that COPY loads, InvalidOid for any other statement, and where it will be
 * refused: nobody else may say that a store lacks rows.
 */
static Oid
table_to_load(Node *stmt)
{
	CopyStmt *copy = (CopyStmt *) stmt;
	Oid table;

	if (!IsA(stmt, CopyStmt) || !copy->is_from || copy->relation == NULL)
		return InvalidOid;
	table = RangeVarGetRelid(copy->relation, NoLock, true);
	if (!OidIsValid(table) || !is_own_schema(get_rel_namespace(table)) ||
		pg_class_aclcheck(table, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
		return InvalidOid;
	return table;
}

/*
 * pg_restore --disable-triggers: DISABLE TRIGGER ALL of a table of ours comes first.  Not if it
 * will be refused: nobody else may touch the row of table activation, nor be told of it.
 */
static bool
disables_our_triggers(Node *stmt)
{
	AlterTableStmt *alter = (AlterTableStmt *) stmt;
	ListCell *cell;
	Oid relid;

	if (!IsA(stmt, AlterTableStmt))
		return false;
	relid = RangeVarGetRelid(alter->relation, NoLock, true);
	if (!OidIsValid(relid) || !eq_owns_table(relid, GetUserId()) ||
		!is_own_schema(get_rel_namespace(relid)))
		return false;
	foreach (cell, alter->cmds)
	{
		if (lfirst_node(AlterTableCmd, cell)->subtype == AT_DisableTrigAll)
			return true;
	}
	return false;
}

static void
write_identity(void)
{
	Oid types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum values[] = {
		Int64GetDatum(identity_here()),
		CStringGetTextDatum(psprintf(UINT64_FORMAT, GetSystemIdentifier())),
		CStringGetTextDatum(get_database_name(MyDatabaseId))};

	if (SPI_execute_with_args("INSERT INTO event_queue_internal.activation"
							  " VALUES ($1, $2, $3, pg_catalog.clock_timestamp())",
							  3, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write table activation");
}

/*
 * Called by the extension's script: a new store is in service at once.  False for
 * one that a dump creates.
 */
Datum
eq_created(PG_FUNCTION_ARGS)
{
	EqSpi spi;

	if (!creating_extension)
		ereport(ERROR, (errcode(ERRCODE_EQ_NOT_SUPPORTED_HERE),
						errmsg("created() is for the extension's script")));
	if (!created_by_restore)
	{
		eq_spi_begin(&spi, GetUserId(), 0);
		write_identity();
		eq_spi_end(&spi);
	}
	PG_RETURN_BOOL(!created_by_restore);
}

#define SUBSCRIBED                                                                  \
	"SELECT FROM pg_catalog.pg_subscription_rel r"                                  \
	" JOIN pg_catalog.pg_class c ON c.oid = r.srrelid"                              \
	" WHERE c.relnamespace = 'event_queue'::pg_catalog.regnamespace"

/*
 * Looks whether all is here; then a new generation above it, what a dump could not
 * carry, and last the row that lets the workers in.
 */
static void
take_into_service(void)
{
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	/* Waits for a COPY of a restore in one transaction, and for others like us. */
	run("LOCK TABLE event_queue_internal.activation IN SHARE ROW EXCLUSIVE MODE");
	if (finds(SUBSCRIBED))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_NOT_ACTIVATED),
				 errmsg("cannot activate a store that receives a subscription"),
				 errhint("Stop the publisher from writing, wait until all has"
						 " arrived, and DROP SUBSCRIPTION first.")));
	if (look_up() != EQ_ACTIVE)
	{
		/* A generation is used up even if the transaction fails. */
		run("SELECT event_queue_internal.check_copy()");
		eq_begin_generation();
		run("SELECT event_queue_internal.mend_copy()");
		run("DELETE FROM event_queue_internal.activation");
		write_identity();
		ereport(LOG, (errmsg("event store of database \"%s\" is taken into service",
							 get_database_name(MyDatabaseId))));
	}
	eq_spi_end(&spi);
}

Datum
eq_activate(PG_FUNCTION_ARGS)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_EQ_NOT_SUPPORTED_HERE),
				 errmsg("cannot activate a store on a standby"),
				 errhint("A standby goes on by itself when it is promoted.")));
	PreventCommandIfReadOnly("activate()");
	eq_require_unbound();
	take_into_service();
	return eq_generation_sql(fcinfo);
}

Datum
eq_activation_state(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		[EQ_NOT_LOADED] = "not loaded", [EQ_ACTIVE] = "active", [EQ_COPY] = "copy"};
	EqActivation state = eq_activation(true);

	if (state != EQ_ACTIVE && session_restores())
		PG_RETURN_TEXT_P(cstring_to_text("restoring"));
	PG_RETURN_TEXT_P(cstring_to_text(names[state]));
}

/* Trigger on built-in queues: stores their settings, for dumps, with the owner's rights. */
Datum
eq_keep_builtin_settings(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	EqSpi spi;
	Oid type = INT4OID;
	Datum queue_id;
	bool isnull;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("keep_builtin_settings: not called by trigger manager")));
	queue_id = heap_getattr(trigger->tg_newtuple, 1 /* queue_id */,
							RelationGetDescr(trigger->tg_relation), &isnull);
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(
			"INSERT INTO event_queue_internal.builtin_queue_settings"
			" SELECT q.name, to_jsonb(q) - '{queue_id,name,created_at}'::text[]"
			" FROM event_queue.queue q WHERE q.queue_id = $1"
			" ON CONFLICT (name) DO UPDATE SET settings = excluded.settings",
			1, &type, &queue_id, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write table builtin_queue_settings");
	eq_spi_end(&spi);
	PG_RETURN_POINTER(NULL);
}

/*
 * How far the readers of a store may go that is not in service.  Nobody appends
 * here, so all that is seen is all there is; what a subscription brings comes in
 * the order of the publisher's commits and not in that of positions, so there its
 * watermark must come along, as on a standby.
 */
int64
eq_watermark_of_copy(void)
{
	int64 subscribed = eq_query_int64(
		"SELECT CASE WHEN EXISTS (" SUBSCRIBED
		" AND c.relname = 'event_watermark') THEN 2 WHEN EXISTS (" SUBSCRIBED
		" AND c.relname ^@ 'event_store') THEN 1 ELSE 0 END::bigint",
		0);

	if (subscribed == 1)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_NOT_ACTIVATED),
				 errmsg("the publisher's watermark is not known here"),
				 errhint("Add table event_queue.event_watermark to the publication"
						 " and refresh the subscription.")));
	if (subscribed == 2)
		return eq_published_watermark();
	return eq_query_int64("SELECT coalesce(max(position), 0)"
						  " FROM event_queue.event_store",
						  0);
}

/*
 * Before and after a utility statement: remembers what CREATE EXTENSION has to
 * know, when a restore was last at work here, and whether its COPYs (of table loaded) have
 * succeeded, also with --disable-triggers.
 */
bool
eq_before_statement(Node *stmt, Oid *loaded)
{
	bool restores = session_restores() && !creating_extension;

	*loaded = InvalidOid;
	if (IsA(stmt, CreateExtensionStmt) &&
		strcmp(((CreateExtensionStmt *) stmt)->extname, EQ_EXTENSION) == 0)
		created_by_restore = session_restores();
	if (restores && disables_our_triggers(stmt) && eq_sql_is_current(NULL))
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		end_service();
		PopActiveSnapshot();
	}
	if (restores)
		*loaded = table_to_load(stmt);
	if (OidIsValid(*loaded) && eq_sql_is_current(NULL))
		note_load(*loaded, true);
	return restores;
}

/* A COPY has succeeded. */
void
eq_after_load(Oid loaded)
{
	if (OidIsValid(loaded) && eq_sql_is_current(NULL))
		note_load(loaded, false);
}

void
eq_after_statement(bool restores)
{
	EqDatabase *db = restores ? eq_find_database(MyDatabaseId) : NULL;

	if (db != NULL)
		pg_atomic_write_u64(&activation_of(db)->restored_at, GetCurrentTimestamp());
}

/*
 * For the scheduler, in no transaction: true if the store is in service.  With
 * event_queue.activate_copies it takes a copy into service once no restore has
 * been at work for a while, and no session of the database is doing anything.
 */
bool
eq_in_service(void)
{
	MemoryContext caller = CurrentMemoryContext;
	EqDatabase *db = eq_database();
	EqActivation state;

	StartTransactionCommand();
	state = eq_activation(true);
	if (state == EQ_COPY && eq_activate_copies &&
		GetCurrentTimestamp() -
				(int64) pg_atomic_read_u64(&activation_of(db)->restored_at) >=
			QUIET_US &&
		eq_query_int64(
			"SELECT count(*) FROM pg_catalog.pg_stat_activity a"
			" WHERE a.datname = pg_catalog.current_database()"
			" AND a.backend_type <> ALL"
			" ('{event_queue scheduler,event_queue executor,autovacuum worker}')"
			" AND a.state <> 'idle'"
			" AND a.pid <> pg_catalog.pg_backend_pid()",
			0) == 0)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		take_into_service();
		PopActiveSnapshot();
		state = EQ_ACTIVE;
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller); /* the end of a transaction leaves it */
	return state == EQ_ACTIVE;
}

/* For an executor, in no transaction: may it run jobs? */
bool
eq_is_active_here(void)
{
	EqActivation state;

	if (is_known_active(eq_database()))
		return true;
	StartTransactionCommand();
	state = eq_activation(false);
	CommitTransactionCommand();
	return state == EQ_ACTIVE;
}

/* Is table "name" about to get the publisher's rows? */
static bool
is_to_be_copied(const char *name)
{
	return finds(
		psprintf(SUBSCRIBED " AND c.relname = '%s' AND r.srsubstate = 'i'", name));
}

/* Past the trigger that keeps the built-in queues; activate() sees to it that they are there. */
static void
delete_builtin_queues(void)
{
	int level = NewGUCNestLevel();

	(void) set_config_option("session_replication_role", "replica", PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	run("DELETE FROM event_queue.queue WHERE queue_id <= 2");
	AtEOXact_GUC(true, level);
}

/*
 * After CREATE or ALTER SUBSCRIPTION: a store that receives another's events is
 * not in service, also when the subscription is gone, until activate().  The rows that
 * CREATE EXTENSION has made make room for the publisher's.
 */
void
eq_note_subscription(void)
{
	EqSpi spi;

	if (creating_extension || !OidIsValid(get_extension_oid(EQ_EXTENSION, true)) ||
		!eq_sql_is_current(NULL))
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (finds(SUBSCRIBED))
	{
		run("DELETE FROM event_queue_internal.activation");
		if (is_to_be_copied("event_watermark"))
			run("DELETE FROM event_queue.event_watermark");
		if (is_to_be_copied("queue"))
			delete_builtin_queues();
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
}
