/*
 * database.c: the databases that have the extension, in shared memory.
 *
 * The first session that needs an entry takes it; it is found by the OID.  It is free when
 * the database is dropped; the entry of a database whose extension was dropped is reused
 * if no other one is free.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"

#include "compat.h"
#include "wake/database.h"

typedef struct Launcher
{
	pg_atomic_uint32 process; /* proc number + 1; 0: none */
	pg_atomic_uint32 asked;
} Launcher;

EqDatabase *eq_database_entries = NULL;
static Launcher *launcher = NULL;
static LWLock *databases_lock = NULL; /* held to take, free and find an entry */

static Size
databases_size(void)
{
	return add_size(MAXALIGN(sizeof(Launcher)),
					mul_size(eq_max_databases, sizeof(EqDatabase)));
}

static void
attach_databases(void *memory, LWLockPadded *locks, bool is_new)
{
	launcher = memory;
	eq_database_entries = (EqDatabase *) ((char *) memory +
										  MAXALIGN(sizeof(Launcher)));
	databases_lock = &locks->lock;
	if (!is_new)
		return;
	pg_atomic_init_u32(&launcher->process, 0);
	pg_atomic_init_u32(&launcher->asked, 0);
	for (int i = 0; i < eq_max_databases; i++)
	{
		EqDatabase *db = &eq_database_entries[i];

		db->dboid = InvalidOid;
		pg_atomic_init_u32(&db->scheduler, 0);
		pg_atomic_init_u32(&db->rule_runner, 0);
		pg_atomic_init_u64(&db->scheduler_due, 0);
		pg_atomic_init_u64(&db->scheduler_tick, 0);
		pg_atomic_init_u32(&db->events_pending, 0);
		pg_atomic_init_u32(&db->rules_pending, 0);
		pg_atomic_init_u32(&db->events_wanted, 0);
		pg_atomic_init_u32(&db->reviews_pending, 0);
		pg_atomic_init_u32(&db->waits_pending, 0);
		pg_atomic_init_u32(&db->event_waiters, 0);
		pg_atomic_init_u32(&db->cancels_pending, 0);
		pg_atomic_init_u32(&db->look_everywhere, 0);
		pg_atomic_init_u32(&db->recount, 0);
		pg_atomic_init_u32(&db->events_awaited, 0);
		pg_atomic_init_u32(&db->jobs_awaited, 0);
		pg_atomic_init_u32(&db->config_generation, 0);
		pg_atomic_init_u32(&db->config_commits, 0);
		pg_atomic_init_u64(&db->unseen_jobs, 0);
		pg_atomic_init_u32(&db->absent, 0);
		pg_atomic_init_u32(&db->drops, 0);
		pg_atomic_init_u32(&db->blocked, 0);
	}
}

const EqSharedPart eq_databases_part = {
	.name = "event_queue databases",
	.n_locks = 1,
	.size = databases_size,
	.attach = attach_databases,
};

/* Looks up the entry of a database, with the lock held. */
static EqDatabase *
look_up(Oid dboid)
{
	for (int i = 0; i < eq_max_databases; i++)
	{
		if (eq_database_entries[i].dboid == dboid)
			return &eq_database_entries[i];
	}
	return NULL;
}

/* The entry of a database, or NULL. */
EqDatabase *
eq_find_database(Oid dboid)
{
	EqDatabase *found;

	LWLockAcquire(databases_lock, LW_SHARED);
	found = look_up(dboid);
	LWLockRelease(databases_lock);
	return found;
}

/*
 * With the lock held: an entry that is free, or that of a database whose extension
 * was dropped and where no session remembers the entry.
 */
static EqDatabase *
free_database(void)
{
	EqDatabase *db = look_up(InvalidOid);

	for (int i = 0; i < eq_max_databases && db == NULL; i++)
	{
		EqDatabase *absent = &eq_database_entries[i];

		if (pg_atomic_read_u32(&absent->absent) != 0 && absent->n_slots == 0 &&
			CountDBBackends(absent->dboid) == 0)
			db = absent;
	}
	return db;
}

/* Resets an entry for another database, with the lock held; generations increase. */
static void
begin_database(EqDatabase *db)
{
	pg_atomic_write_u32(&db->scheduler, 0);
	pg_atomic_write_u32(&db->rule_runner, 0);
	pg_atomic_write_u32(&db->events_pending, 1);
	pg_atomic_write_u32(&db->rules_pending, 1);
	pg_atomic_write_u32(&db->events_wanted,
						EQ_EVENTS_FOR_RULES | EQ_EVENTS_FOR_SNAPSHOTS);
	pg_atomic_write_u32(&db->waits_pending, 1);
	pg_atomic_write_u32(&db->event_waiters, 1);
	pg_atomic_write_u32(&db->look_everywhere, 1);
	pg_atomic_write_u32(&db->recount, 0);
	pg_atomic_write_u32(&db->events_awaited, 1);
	pg_atomic_write_u32(&db->absent, 0);
	pg_atomic_write_u32(&db->blocked, 0);
	db->n_slots = 0;
	db->without_slots = 0;
	eq_begin_database(eq_database_number(db));
	db->dboid = MyDatabaseId;
}

/* The entry of this session's database, taken if it has none yet. */
EqDatabase *
eq_database(void)
{
	static EqDatabase *mine = NULL;

	if (mine != NULL)
		return mine;

	LWLockAcquire(databases_lock, LW_EXCLUSIVE);
	mine = look_up(MyDatabaseId);
	if (mine == NULL)
	{
		mine = free_database();
		if (mine != NULL)
			begin_database(mine);
	}
	LWLockRelease(databases_lock);

	if (mine == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many databases use event_queue"),
			 errhint(
				 "Raise event_queue.max_databases (now %d) and restart the server.",
				 eq_max_databases)));
	return mine;
}

/* A database was dropped: its entry is free. */
void
eq_forget_database(Oid dboid)
{
	EqDatabase *db;

	LWLockAcquire(databases_lock, LW_EXCLUSIVE);
	db = look_up(dboid);
	if (db)
		db->dboid = InvalidOid;
	LWLockRelease(databases_lock);
}

void
eq_enter_launcher(void)
{
	pg_atomic_write_u32(&launcher->process, EQ_MY_PROC_NUMBER + 1);
}

void
eq_leave_launcher(void)
{
	pg_atomic_write_u32(&launcher->process, 0);
}

/* Has the launcher look at all databases.  Can't throw. */
void
eq_ask_launcher(void)
{
	uint32 process;

	pg_atomic_write_u32(&launcher->asked, 1);
	process = pg_atomic_read_u32(&launcher->process);
	if (process > 0)
		SetLatch(&ProcGlobal->allProcs[process - 1].procLatch);
}

/* For the launcher: was it asked to?  Takes the flag down. */
bool
eq_launcher_is_asked(void)
{
	return pg_atomic_exchange_u32(&launcher->asked, 0) != 0;
}
