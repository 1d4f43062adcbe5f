/*
 * registry.c: starts, finds and ends background workers, and lets them wait.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "portability/instr_time.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "event_queue.h"
#include "table/table.h"
#include "wake/database.h"
#include "worker/worker.h"

#define BACK_OFF_MS 1000

static EqWorker *my_worker = NULL;

/* Frees the entry on exit, also after an error. */
static void
leave_worker(int code, Datum arg)
{
	EqDatabase *db = eq_find_database(MyDatabaseId);
	uint32 me = EQ_MY_PROC_NUMBER + 1;

	if (my_worker == NULL)
		return;
	if (db && my_worker->kind == EQ_WORKER_SCHEDULER)
		(void) pg_atomic_compare_exchange_u32(&db->scheduler, &me, 0);
	else if (db && my_worker->kind == EQ_WORKER_RULES)
		(void) pg_atomic_compare_exchange_u32(&db->rule_runner, &me, 0);
	LWLockAcquire(eq_workers_lock, LW_EXCLUSIVE);
	my_worker->kind = EQ_WORKER_NONE;
	LWLockRelease(eq_workers_lock);
	my_worker = NULL;
}

/*
 * Enters this process.  NULL if another one has the entry (kind, index) of
 * this database, or none is free.
 */
static EqWorker *
enter_worker(EqWorkerKind kind, int index)
{
	EqWorker *free_entry = NULL;
	bool taken = false;

	LWLockAcquire(eq_workers_lock, LW_EXCLUSIVE);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker *worker = &eq_worker_list[i];

		if (worker->kind == EQ_WORKER_NONE)
		{
			if (free_entry == NULL)
				free_entry = worker;
		}
		else if (worker->kind == kind && worker->dboid == MyDatabaseId &&
				 worker->index == index)
			taken = true;
	}
	if (!taken && free_entry != NULL)
	{
		free_entry->dboid = MyDatabaseId;
		free_entry->index = index;
		free_entry->pid = MyProcPid;
		free_entry->proc_number = EQ_MY_PROC_NUMBER;
		pg_atomic_write_u32(&free_entry->idle, 0);
		pg_atomic_write_u64(&free_entry->jobs_done, 0);
		pg_atomic_write_u64(&free_entry->current_job, 0);
		pg_atomic_write_u64(&free_entry->cancelled_job, 0);
		pg_atomic_write_u32(&free_entry->seat, 0);
		pg_atomic_write_u32(&free_entry->work, 0);
		pg_atomic_write_u64(&free_entry->busy_since, 0);
		pg_atomic_write_u64(&free_entry->deadline, 0);
		pg_atomic_write_u64(&free_entry->terminated, 0);
		pg_atomic_write_u32(&free_entry->signals, 0);
		free_entry->kind = kind;
		my_worker = free_entry;
	}
	LWLockRelease(eq_workers_lock);

	if (my_worker != NULL)
		before_shmem_exit(leave_worker, (Datum) 0);
	return my_worker;
}

bool
eq_worker_is_alive(Oid dboid, EqWorkerKind kind, int index)
{
	bool alive = false;

	LWLockAcquire(eq_workers_lock, LW_SHARED);
	for (int i = 0; i < EQ_MAX_WORKERS && !alive; i++)
	{
		EqWorker *worker = &eq_worker_list[i];

		alive = worker->kind == kind && worker->dboid == dboid &&
				worker->index == index;
	}
	LWLockRelease(eq_workers_lock);
	return alive;
}

/* Sets the latches of this database's idle executors. */
void
eq_wake_executors(void)
{
	LWLockAcquire(eq_workers_lock, LW_SHARED);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker *worker = &eq_worker_list[i];

		if (worker->kind == EQ_WORKER_EXECUTOR && worker->dboid == MyDatabaseId &&
			eq_stir_worker(worker))
			SetLatch(&ProcGlobal->allProcs[worker->proc_number].procLatch);
	}
	LWLockRelease(eq_workers_lock);
}

/* Registers a worker; false if max_worker_processes is reached. */
bool
eq_start_worker(EqWorkerKind kind, Oid dboid, int index,
				BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = ObjectIdGetDatum(dboid);
	memcpy(worker.bgw_extra, &index, sizeof(index));
	strlcpy(worker.bgw_library_name, "event_queue", sizeof(worker.bgw_library_name));
	if (kind == EQ_WORKER_RULES)
	{
		strlcpy(worker.bgw_function_name, "eq_runner_main", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN,
				 "event_queue rule runner of database %u", dboid);
		strlcpy(worker.bgw_type, "event_queue rule runner", BGW_MAXLEN);
	}
	else if (kind == EQ_WORKER_KEEPER)
	{
		strlcpy(worker.bgw_function_name, "eq_keeper_main", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN, "event_queue keeper of database %u",
				 dboid);
		strlcpy(worker.bgw_type, "event_queue keeper", BGW_MAXLEN);
	}
	else if (kind == EQ_WORKER_SCHEDULER)
	{
		strlcpy(worker.bgw_function_name, "eq_scheduler_main", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN, "event_queue scheduler of database %u",
				 dboid);
		strlcpy(worker.bgw_type, "event_queue scheduler", BGW_MAXLEN);
	}
	else
	{
		strlcpy(worker.bgw_function_name, "eq_executor_main", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN,
				 "event_queue executor %d of database %u", index, dboid);
		strlcpy(worker.bgw_type, "event_queue executor", BGW_MAXLEN);
	}
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/*
 * Was this process asked to end by the postmaster, another session, or an operator?
 * Then it gives the job in hand back; an end that the job brought about itself counts
 * (executor.c).
 */
static volatile sig_atomic_t end_was_asked_for = false;

static long faults_before; /* of ended children, when the job began */

/* Returns the page faults of ended children: more than before if another one has ended. */
static long
faults_of_children(void)
{
	struct rusage usage;

	(void) getrusage(RUSAGE_CHILDREN, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/* Begins to count children for the next job. */
void
eq_forget_children(void)
{
	faults_before = faults_of_children();
}

/*
 * Is the process this one, or was it begun by it (COPY ... PROGRAM)?  Each process of
 * the server has a POSIX session of its own.  One that is gone by now is taken for one
 * of the job's if the job has had any; one that this namespace of process ids does not
 * show (0) is not.  Called in a signal handler: only system calls.
 */
static bool
is_of_this_process(pid_t pid)
{
	pid_t session;

	if (pid <= 0)
		return false;
	session = getsid(pid);
	return pid == MyProcPid || session == MyProcPid ||
		   (session < 0 && faults_of_children() != faults_before);
}

/* Files that user code may have open as sockets: all below this. */
#define MAX_SOCKETS 4096

static bool inherited[MAX_SOCKETS]; /* the socket is the postmaster's, too */

static bool
is_socket(int fd)
{
	struct stat file;

	return fstat(fd, &file) == 0 && S_ISSOCK(file.st_mode);
}

static void
note_inherited_sockets(void)
{
	for (int fd = 0; fd < MAX_SOCKETS; fd++)
		inherited[fd] = is_socket(fd);
}

/*
 * Ends the connections that user code has opened: a library that waits for the other side,
 * as libpq does while it connects, sees no interrupt until then.  Called in a signal handler:
 * only system calls.
 */
static void
break_connections(void)
{
	for (int fd = 0; fd < MAX_SOCKETS; fd++)
	{
		if (!inherited[fd] && is_socket(fd))
			(void) shutdown(fd, SHUT_RDWR);
	}
}

static void
note_sender_and_die(int signo, siginfo_t *info, void *context)
{
	int saved_errno = errno;
	pid_t sender = info->si_pid;

	/* A child between fork and exec has nothing to do here. */
	if (MyProcPid == (int) getpid())
	{
		end_was_asked_for = !is_of_this_process(sender);
		die(signo);
		break_connections();
	}
	errno = saved_errno;
}

bool
eq_end_was_asked_for(void)
{
	return end_was_asked_for;
}

/*
 * Before it connects, since what is set so stands above the settings of the database and of
 * the configuration: those are for sessions, but a worker serves all tenants, and only it
 * knows how long its transactions may take.  Serializable ones of the scheduler and the rule
 * runner, which read and write what all others do, would fail one after the other, and make
 * others fail; handlers run as the settings say.
 */
static void
refuse_settings(EqWorkerKind kind)
{
	static const char *const of_sessions[] = {
		"event_queue.tenant", "event_queue.actor", "event_queue.correlation_id",
		"event_queue.causation_id", "event_queue.rule_chain"};

	for (int i = 0; i < lengthof(of_sessions); i++)
		SetConfigOption(of_sessions[i], "", PGC_SUSET, PGC_S_OVERRIDE);
	if (kind != EQ_WORKER_EXECUTOR)
		SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET,
						PGC_S_OVERRIDE);
	eq_allow_long_transactions();
}

/*
 * Is a statement at work that needs the database empty (launcher.c)?  It says so before it looks
 * for workers, so one that has entered sees it, or is seen.
 */
static bool
is_kept_away(Oid dboid)
{
	EqDatabase *db = eq_find_database(dboid);

	return db != NULL && pg_atomic_read_u32(&db->blocked) > 0;
}

/* Connects a worker to its database and enters it; ends the process if its entry is taken. */
EqWorker *
eq_init_worker(EqWorkerKind kind, Oid dboid, int index)
{
	struct sigaction action = {0};

	note_inherited_sockets();
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	action.sa_sigaction = note_sender_and_die;
	action.sa_flags = SA_RESTART | SA_SIGINFO;
	sigemptyset(&action.sa_mask);
	sigaction(SIGTERM, &action, NULL);
	BackgroundWorkerUnblockSignals();
	refuse_settings(kind);
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	if (enter_worker(kind, index) == NULL || is_kept_away(dboid))
		proc_exit(0);
	eq_is_worker = true;
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	return my_worker;
}

/* Is the extension in this database? (In a transaction of its own.) */
bool
eq_extension_is_here(void)
{
	bool here;

	StartTransactionCommand();
	here = OidIsValid(get_extension_oid(EQ_EXTENSION, true));
	CommitTransactionCommand();
	return here;
}

/* And of the library's version?  Else nothing of it may run. */
bool
eq_extension_is_current(void)
{
	return eq_extension_is_here() && !eq_update_is_due();
}

/* After an error: a pause that no wake-up shortens, but a signal does. */
void
eq_worker_back_off(void)
{
	instr_time begun;
	instr_time now;
	long left = BACK_OFF_MS;

	pgstat_report_activity(STATE_IDLE, NULL);
	INSTR_TIME_SET_CURRENT(begun);
	while (left > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		QueryCancelPending = false; /* nothing runs */
		CHECK_FOR_INTERRUPTS();
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, begun);
		left = BACK_OFF_MS - (long) INSTR_TIME_GET_MILLISEC(now);
	}
	SetLatch(MyLatch); /* a wake-up that came meanwhile is not lost */
}

/* Sleeps until the latch is set or the time is over; timeout < 0: no limit. */
void
eq_worker_wait(long timeout_ms)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	pgstat_report_activity(STATE_IDLE, NULL);
	(void) WaitLatch(MyLatch, events, timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	eq_worker_reload();
}

/* Reads the configuration again if it was changed. */
void
eq_worker_reload(void)
{
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}
