/*
 * health.c: what health() cannot do in SQL: lock tables without waiting, and tell whether
 * the scheduler and the executors are alive.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"

#include "common/interval.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "table/table.h"
#include "wake/database.h"
#include "watch/watch.h"

PG_FUNCTION_INFO_V1(eq_lock_for_look);
PG_FUNCTION_INFO_V1(eq_scheduler_overdue);
PG_FUNCTION_INFO_V1(eq_executor_overdue);
PG_FUNCTION_INFO_V1(eq_session_began);

/*
 * Locks a table with its indexes and partitions, without waiting.  Returns InvalidOid, or the
 * relation on which another session holds a conflicting lock.
 */
static Oid
lock_table(Oid relid)
{
	Relation rel;
	ListCell *cell;
	Oid locked = InvalidOid;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return relid;
	rel = try_table_open(relid, NoLock);
	if (rel == NULL) /* a partition that was dropped meanwhile */
		return InvalidOid;
	foreach (cell, RelationGetIndexList(rel))
	{
		/* REINDEX has one and not the table */
		if (!ConditionalLockRelationOid(lfirst_oid(cell), AccessShareLock))
			locked = relid;
	}
	table_close(rel, NoLock);
	foreach (cell, find_inheritance_children(relid, NoLock))
	{
		if (!OidIsValid(locked))
			locked = lock_table(lfirst_oid(cell));
	}
	return locked;
}

Datum
eq_lock_for_look(PG_FUNCTION_ARGS)
{
	Datum *names;
	int n;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT,
					  &names, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		char *name = TextDatumGetCString(names[i]);
		Oid relid = eq_find_relation(name);
		Oid locked = OidIsValid(relid) ? lock_table(relid) : InvalidOid;
		char *locked_name = OidIsValid(locked) ? get_rel_name(locked) : NULL;

		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(locked))
			PG_RETURN_TEXT_P(cstring_to_text(locked_name ? locked_name : name));
	}
	PG_RETURN_NULL();
}

Datum
eq_scheduler_overdue(PG_FUNCTION_ARGS)
{
	EqDatabase *db = eq_find_database(MyDatabaseId);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;

	if (db == NULL || pg_atomic_read_u32(&db->scheduler) == 0)
		PG_RETURN_NULL();
	due = (TimestampTz) pg_atomic_read_u64(&db->scheduler_due);
	if (due == 0 || due >= now)
		PG_RETURN_NULL();
	PG_RETURN_INTERVAL_P(eq_make_interval(now - due + EQ_SCHEDULER_GRACE_US));
}

Datum
eq_executor_overdue(PG_FUNCTION_ARGS)
{
	int64 asleep = 0;

	LWLockAcquire(eq_workers_lock, LW_SHARED);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker *worker = &eq_worker_list[i];

		if (worker->dboid == MyDatabaseId && worker->pid == PG_GETARG_INT32(0))
			asleep = Max(asleep, eq_asleep_us(worker));
	}
	LWLockRelease(eq_workers_lock);
	if (asleep <= EQ_SCHEDULER_GRACE_US)
		PG_RETURN_NULL();
	PG_RETURN_INTERVAL_P(eq_make_interval(asleep));
}

/* As the owner: pg_stat_activity shows little of others to plain observers. */
Datum
eq_session_began(PG_FUNCTION_ARGS)
{
	int64 us = eq_query_int64(
		"SELECT (extract(epoch FROM a.xact_start) * 1000000)::bigint"
		" FROM pg_catalog.pg_stat_activity a"
		" WHERE a.pid = $1 AND a.datname = pg_catalog.current_database()",
		PG_GETARG_INT32(0));

	if (us == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(us -
						  (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
}
