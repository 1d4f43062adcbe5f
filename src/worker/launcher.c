/*
 * launcher.c: finds the databases that have the extension, and keeps one scheduler running
 * in each.
 *
 * The launcher is connected to no database, and only a session inside a database can see
 * whether the extension is there.  So it starts a scheduler in each database once; one that
 * finds no extension ends, and the database gets no entry in shared memory.  After that,
 * CREATE EXTENSION sets the launcher's latch.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "compat.h"
#include "event_queue.h"
#include "wake/wake.h"
#include "worker/worker.h"

#define NAP_MS	   10000
#define RESTART_US (2 * USECS_PER_SEC)

/* A database, as the launcher keeps it. */
typedef struct Known
{
	Oid dboid;
	bool seen;						/* in pg_database, this time */
	bool probed;					/* a scheduler has been there */
	BackgroundWorkerHandle *handle; /* NULL: none started */
	TimestampTz started_at;
	bool refused; /* there was no place for it, and that was said */
} Known;

/* Of Known; a list, as no hash scan may be open across the transactions below. */
static List *known_databases = NIL;

void
eq_register_launcher(void)
{
	BackgroundWorker worker = {0};

	/* pg_upgrade fills the catalogs table by table. */
	if (IsBinaryUpgrade)
		return;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "event_queue", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "eq_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "event_queue launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "event_queue launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/* May workers run in this database, by event_queue.databases? */
static bool
is_allowed(const char *dbname)
{
	List *names;
	ListCell *cell;

	if (eq_databases == NULL || eq_databases[0] == '\0')
		return true;
	if (!SplitIdentifierString(pstrdup(eq_databases), ',', &names))
	{
		static bool said = false; /* only the server's start sets such a list */

		if (!said)
			ereport(WARNING,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid list in setting event_queue.databases"),
					 errdetail("It names no database: workers run in none."),
					 errhint("Correct it and reload the configuration.")));
		said = true;
		return false;
	}
	foreach (cell, names)
	{
		if (strcmp(lfirst(cell), dbname) == 0)
			return true;
	}
	return false;
}

/* Finds the entry of a database, or makes one. */
static Known *
find_known(Oid dboid)
{
	MemoryContext old;
	ListCell *cell;
	Known *known;

	foreach (cell, known_databases)
	{
		known = lfirst(cell);
		if (known->dboid == dboid)
			return known;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	known = palloc0(sizeof(Known));
	known->dboid = dboid;
	known_databases = lappend(known_databases, known);
	MemoryContextSwitchTo(old);
	return known;
}

/* Marks the databases that are there; as autovacuum's launcher reads them. */
static void
look_at_databases(void)
{
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database db = (Form_pg_database) GETSTRUCT(tuple);
		Known *known;

		if (!db->datallowconn || db->datistemplate ||
			!is_allowed(NameStr(db->datname)))
			continue;
		known = find_known(db->oid);
		known->seen = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
}

/* Frees what a dropped database held in shared memory. */
static void
forget_database(Oid dboid)
{
	eq_give_back_all_slots(dboid);
	eq_clear_faults(dboid, NULL, NULL);
	eq_forget_database(dboid);
}

/* Asks the workers of a database to end; how many there are. */
static int
signal_workers(Oid dboid)
{
	int alive = 0;

	LWLockAcquire(eq_workers_lock, LW_SHARED);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker *worker = &eq_worker_list[i];

		if (worker->kind == EQ_WORKER_NONE || worker->dboid != dboid)
			continue;
		alive++;
		kill(worker->pid, SIGTERM);
	}
	LWLockRelease(eq_workers_lock);
	return alive;
}

static void
keep_schedulers_running(void)
{
	ListCell *cell;
	bool probe = eq_launcher_is_asked();

	foreach (cell, known_databases)
		((Known *) lfirst(cell))->seen = false;
	look_at_databases();

	foreach (cell, known_databases)
	{
		Known *known = lfirst(cell);
		EqDatabase *db = eq_find_database(known->dboid);
		pid_t pid;

		if (known->handle &&
			GetBackgroundWorkerPid(known->handle, &pid) == BGWH_STOPPED)
		{
			pfree(known->handle);
			known->handle = NULL;
		}
		if (!known->seen)
		{
			/* Not allowed any more, or dropped. */
			if (signal_workers(known->dboid) == 0 && known->handle == NULL)
			{
				bool dropped;

				StartTransactionCommand();
				dropped = get_database_name(known->dboid) == NULL;
				CommitTransactionCommand();
				if (dropped)
					forget_database(known->dboid);
				known_databases = foreach_delete_current(known_databases, cell);
				pfree(known);
			}
			continue;
		}
		/* One may be left from a launcher before this one. */
		if (known->handle ||
			eq_worker_is_alive(known->dboid, EQ_WORKER_SCHEDULER, 0))
			continue;
		if (db && pg_atomic_read_u32(&db->blocked) > 0)
			continue;
		/* Wanted where the extension is, and once where nobody has looked. */
		if (known->probed && !probe &&
			(db == NULL || pg_atomic_read_u32(&db->absent) != 0))
			continue;
		if (known->started_at > GetCurrentTimestamp())
			known->started_at = 0; /* the clock was set back */
		if (!TimestampDifferenceExceeds(known->started_at, GetCurrentTimestamp(),
										RESTART_US / 1000) &&
			!(probe && db != NULL))
			continue;
		known->started_at = GetCurrentTimestamp();
		if (eq_start_worker(EQ_WORKER_SCHEDULER, known->dboid, 0, &known->handle))
		{
			known->probed = true;
			known->refused = false;
		}
		else if (!known->refused)
		{
			known->refused = true;
			ereport(
				WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg(
					 "event_queue: no free background worker for the scheduler of database %u",
					 known->dboid),
				 errhint("Raise max_worker_processes and restart the server.")));
		}
	}
}

static void
leave_launcher(int code, Datum arg)
{
	eq_leave_launcher();
}

void
eq_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	before_shmem_exit(leave_launcher, (Datum) 0);
	eq_enter_launcher();
	pgstat_report_appname("event_queue launcher");
	for (;;)
	{
		/* Handles outlive the cycle, and the rest of it is freed with its transactions. */
		MemoryContextSwitchTo(TopMemoryContext);
		keep_schedulers_running();
		eq_worker_wait(NAP_MS);
	}
}

/*
 * The database that a utility statement needs empty of other sessions, or
 * NULL: DROP DATABASE, ALTER DATABASE ... RENAME or SET TABLESPACE, CREATE
 * DATABASE ... TEMPLATE.
 */
const char *
eq_database_emptied_by(Node *stmt)
{
	if (IsA(stmt, DropdbStmt))
		return ((DropdbStmt *) stmt)->dbname;
	if (IsA(stmt, RenameStmt) &&
		((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
		return ((RenameStmt *) stmt)->subname;
	if (IsA(stmt, CreatedbStmt) || IsA(stmt, AlterDatabaseStmt))
	{
		List *options = IsA(stmt, CreatedbStmt)
							? ((CreatedbStmt *) stmt)->options
							: ((AlterDatabaseStmt *) stmt)->options;
		ListCell *cell;

		foreach (cell, options)
		{
			DefElem *option = lfirst_node(DefElem, cell);

			if (IsA(stmt, CreatedbStmt) &&
				strcmp(option->defname, "template") == 0 && option->arg)
				return defGetString(option);
			if (IsA(stmt, AlterDatabaseStmt) &&
				strcmp(option->defname, "tablespace") == 0)
				return ((AlterDatabaseStmt *) stmt)->dbname;
		}
	}
	return NULL;
}

/*
 * Ends the workers of a database and keeps them away.  Waits up to five
 * seconds; whatever is still there then makes the statement fail as any other
 * session would.
 */
static void
send_workers_away(Oid dboid)
{
	EqDatabase *db = eq_find_database(dboid);

	if (db == NULL)
		return;
	pg_atomic_fetch_add_u32(&db->blocked, 1);
	for (int tries = 0; tries < 50; tries++)
	{
		if (signal_workers(dboid) == 0)
			return;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(100000L);
	}
}

static void
let_workers_return(Oid dboid)
{
	EqDatabase *db = eq_find_database(dboid);

	if (db == NULL)
		return;
	if (pg_atomic_read_u32(&db->blocked) > 0)
		pg_atomic_fetch_sub_u32(&db->blocked, 1);
	eq_ask_launcher();
}

/* The databases whose workers this transaction keeps away; in TopTransactionContext. */
static List *kept_empty = NIL;

/*
 * Sends the workers of a database away until the transaction ends: before that a new one
 * would wait for the lock on the database, to find it gone or with another name.
 */
void
eq_send_workers_away_until_end(Oid dboid)
{
	MemoryContext old;

	if (list_member_oid(kept_empty, dboid))
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	kept_empty = lappend_oid(kept_empty, dboid);
	MemoryContextSwitchTo(old);
	send_workers_away(dboid);
}

static void
let_all_return(void)
{
	ListCell *cell;

	foreach (cell, kept_empty)
		let_workers_return(lfirst_oid(cell));
	kept_empty = NIL;
}

EqXactKind eq_workers_away = {
	.at_commit = let_all_return,
	.at_prepare = let_all_return,
	.at_abort = let_all_return,
};
