/*
 * children.c: starts the scheduler's workers, and restarts those that ended.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "wake/database.h"
#include "worker/scheduler.h"

/* A worker that the scheduler has started. */
typedef struct Child
{
	BackgroundWorkerHandle *handle; /* NULL: none */
	TimestampTz started_at;
} Child;

static Child executors[2 * EQ_MAX_EXECUTORS]; /* with those that stand in */
static Child rule_runner;
static Child keeper;
static bool work_waits = false; /* jobs of handlers, when last looked */

static void
name_start(char *name, int size, int executor)
{
	snprintf(name, size, "start of executor %d", executor);
}

/*
 * Starts a worker unless it is there or has just been started.  Without a free
 * place for it, that is a fault until there is one.
 */
static void
keep_running(EqWorkerKind kind, int index, Child *child)
{
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext old;
	char name[64];
	pid_t pid;
	bool started;

	if (child->handle && GetBackgroundWorkerPid(child->handle, &pid) == BGWH_STOPPED)
	{
		pfree(child->handle);
		child->handle = NULL;
	}
	/* A worker may be left that an earlier scheduler started. */
	if (child->handle || eq_worker_is_alive(MyDatabaseId, kind, index) ||
		!TimestampDifferenceExceeds(child->started_at, now, EQ_RESTART_MS))
		return;
	child->started_at = now;
	if (kind == EQ_WORKER_EXECUTOR)
		name_start(name, sizeof(name), index);
	else
		snprintf(name, sizeof(name), "start of the %s",
				 kind == EQ_WORKER_RULES ? "rule runner" : "keeper");
	old = MemoryContextSwitchTo(TopMemoryContext); /* for the handle */
	started = eq_start_worker(kind, MyDatabaseId, index, &child->handle);
	MemoryContextSwitchTo(old);
	if (started)
		eq_clear_item("scheduler", name, false);
	else if (kind != EQ_WORKER_EXECUTOR || index < eq_executors)
		(void) eq_note_item("scheduler", name, NULL,
							ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
							"no free background worker (max_worker_processes)",
							"Raise max_worker_processes and restart the server.");
}

/* Starts the executors and, if there are rules, the rule runner. */
void
eq_keep_workers_running(void)
{
	static int n_wanted = 0; /* executors, when last looked */

	for (int i = 0; i < eq_executors; i++)
		keep_running(EQ_WORKER_EXECUTOR, i, &executors[i]);
	/* Those that are not wanted any more are not missing either. */
	for (int i = eq_executors; i < n_wanted; i++)
	{
		char name[64];

		name_start(name, sizeof(name), i);
		eq_clear_item("scheduler", name, true);
	}
	n_wanted = eq_executors;
	if ((pg_atomic_read_u32(&eq_database()->events_wanted) & EQ_EVENTS_FOR_RULES) !=
		0)
		keep_running(EQ_WORKER_RULES, 0, &rule_runner);
}

/*
 * Starts a stand-in if jobs wait and every executor is busy for long: another one
 * stands in, for jobs of other handlers (executor.c), up to as many again.  When to
 * look again; 0: no need.
 */
TimestampTz
eq_send_stand_in(void)
{
	TimestampTz busy_at;

	if (!work_waits)
		return 0;
	busy_at = eq_all_busy_at();
	if (busy_at > GetCurrentTimestamp())
		return busy_at;
	work_waits = false;
	for (int i = eq_executors; busy_at != 0 && i < 2 * eq_executors; i++)
	{
		if (!eq_worker_is_alive(MyDatabaseId, EQ_WORKER_EXECUTOR, i))
		{
			keep_running(EQ_WORKER_EXECUTOR, i, &executors[i]);
			break;
		}
	}
	return 0;
}

/* Starts the keeper; false if one is at work or has just been started. */
bool
eq_start_keeper(void)
{
	TimestampTz before = keeper.started_at;

	keep_running(EQ_WORKER_KEEPER, 0, &keeper);
	return keeper.started_at != before;
}

/* Says that jobs of handlers wait: eq_send_stand_in looks whether all are busy. */
void
eq_note_work_waits(void)
{
	work_waits = true;
}

/* The clock was set back: when workers were started is not known. */
void
eq_forget_starts(void)
{
	rule_runner.started_at = keeper.started_at = 0;
	for (int i = 0; i < lengthof(executors); i++)
		executors[i].started_at = 0;
}
