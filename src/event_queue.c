/*
 * event_queue.c: defines the settings and installs the hooks.
 *
 * All else is in the room of its topic: the parts of shared memory are listed in
 * shared_memory.c, the actions at the end of a transaction in xact/order.c.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "limits.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "common/access.h"
#include "common/log_line.h"
#include "compat.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "store/members.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/series.h"
#include "wake/wake.h"
#include "worker/worker.h"
#include "xact/xact.h"

PG_MODULE_MAGIC;

EQ_FUNCTION_OF_ALL_VERSIONS(eq_version);

char *eq_tenant = NULL;
char *eq_actor = NULL;
char *eq_correlation_id = NULL;
char *eq_causation_id = NULL;
char *eq_rule_chain = NULL;
int eq_publish_interval_ms = 1000;
bool eq_require_tenant = false;
int eq_max_payload_kb = 1024;
int eq_notify_mode = EQ_NOTIFY_WORKER;
int eq_executors = 2;
int eq_executor_memory_kb = 256 * 1024;
int eq_handler_batch_ms = 5;
char *eq_databases = NULL;
bool eq_activate_copies = false;
int eq_rule_batch = 500;
int eq_stuck_after_ms = 5 * 60 * 1000;
int eq_condition_timeout = 1000;
int eq_append_timeout = 10 * 60 * 1000;
int eq_keep_audit_min = 365 * 24 * 60;
int eq_alert_interval_ms = 5000;
int eq_max_databases = 64;
int eq_max_queues = 16384;
int eq_max_limited_leases = 65536;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;
static ProcessUtility_hook_type prev_process_utility_hook = NULL;

static const struct config_enum_entry notify_modes[] = {
	{"worker", EQ_NOTIFY_WORKER, false},
	{"transaction", EQ_NOTIFY_TRANSACTION, false},
	{"off", EQ_NOTIFY_OFF, false},
	{NULL, 0, false}};

static const struct config_enum_entry log_attempts_modes[] = {
	{"off", EQ_LOG_OFF, false},
	{"failures", EQ_LOG_FAILURES, false},
	{"all", EQ_LOG_ALL, false},
	{NULL, 0, false}};

void _PG_init(void);

/*
 * A list that can't be read would name no database.  When the configuration is read again, the
 * one that was there stays, as the workers of all databases would end; when the server starts, it
 * holds (launcher.c), as the default would name all; and so it does in parallel workers, which
 * are given the settings of their leader, or could not run.
 */
static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char *list;
	List *names = NIL;
	bool valid;

	if (*newval == NULL || process_shared_preload_libraries_in_progress ||
		InitializingParallelWorker)
		return true;
	list = pstrdup(*newval);
	valid = SplitIdentifierString(list, ',', &names);
	list_free(names);
	pfree(list);
	if (!valid)
		GUC_check_errdetail("List syntax is invalid.");
	return valid;
}

static void
define_settings(void)
{
	DefineCustomStringVariable(
		"event_queue.tenant", "Tenant that the session acts for.",
		"Empty: each call names its tenant, or means the tenant \"default\".",
		&eq_tenant, "", PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("event_queue.actor",
							   "Who acts: the actor in the metadata of events.",
							   "Empty: the session's role.", &eq_actor, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"event_queue.correlation_id",
		"Chain that events and jobs of this session belong to.",
		"Empty: what caused them says it.", &eq_correlation_id, "", PGC_USERSET, 0,
		NULL, NULL, NULL);
	DefineCustomStringVariable(
		"event_queue.causation_id",
		"Id of the event that causes what this session appends and enqueues.", NULL,
		&eq_causation_id, "", PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"event_queue.rule_chain",
		"Rules that led to what this session appends and enqueues.",
		"For workers outside: the member rule_chain of their job's metadata, so that no rule runs in a loop.",
		&eq_rule_chain, "", PGC_USERSET, 0, eq_check_rule_chain, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.publish_interval",
		"How often the watermark is published for standbys; 0: not at all.", NULL,
		&eq_publish_interval_ms, 1000, 0, 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL,
		NULL, NULL);
	DefineCustomBoolVariable(
		"event_queue.require_tenant",
		"Refuses calls that neither name a tenant nor come from a session that has one.",
		NULL, &eq_require_tenant, false, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"event_queue.log_tenant_access",
		"Logs for which tenants sessions act that no role binds to one.", NULL,
		&eq_log_tenant_access, false, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("event_queue.max_payload",
							"Largest size of an event's data or a job's payload.",
							NULL, &eq_max_payload_kb, 1024, 1, 256 * 1024, PGC_SUSET,
							GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomEnumVariable(
		"event_queue.notify",
		"Who sends NOTIFY for new jobs: the worker after commit, the transaction itself, or no one.",
		NULL, &eq_notify_mode, EQ_NOTIFY_WORKER, notify_modes, PGC_SUSET, 0, NULL,
		NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.keep_trace",
		"How long trace() shows finished jobs that an event caused, if the history does not keep them; 0: not at all.",
		NULL, &eq_keep_trace_s, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL,
		NULL);
	DefineCustomIntVariable(
		"event_queue.stuck_after",
		"After this, health() finds fault with jobs that nobody takes and transactions that stay open.",
		NULL, &eq_stuck_after_ms, 5 * 60 * 1000, 0, INT_MAX, PGC_USERSET,
		GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomEnumVariable(
		"event_queue.log_attempts",
		"Which runs of jobs, and which events that met a rule, have a line in the server's log.",
		"failures: those in the database that failed; all: all of them, and what workers outside report.",
		&eq_log_attempts, EQ_LOG_FAILURES, log_attempts_modes, PGC_SUSET, 0, NULL,
		NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.executors",
		"Processes that run handlers in each database that has the extension.", NULL,
		&eq_executors, 2, 0, EQ_MAX_EXECUTORS, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.executor_memory",
		"Memory that an executor keeps between jobs before a new one takes its place.",
		"Looked at after every 100 jobs; 0: no limit.", &eq_executor_memory_kb,
		256 * 1024, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.handler_batch_time",
		"How long an executor goes on with jobs that run quickly before it commits them together.",
		"0: each job is a transaction of its own.", &eq_handler_batch_ms, 5, 0, 1000,
		PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"event_queue.databases",
		"Databases whose workers may run, separated by commas; empty: all that have the extension.",
		NULL, &eq_databases, "", PGC_SIGHUP, GUC_LIST_INPUT, check_databases, NULL,
		NULL);
	DefineCustomBoolVariable(
		"event_queue.activate_copies",
		"Takes restored and copied stores into service without activate().",
		"Once no restore has been at work in the database for 30 seconds.",
		&eq_activate_copies, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("event_queue.rule_batch",
							"Most events that the rules take in one transaction.",
							NULL, &eq_rule_batch, 500, 1, 100000, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.rule_depth", "Most rules that may fire one after the other.",
		"An event that so many rules led to lets no further one fire.",
		&eq_rule_depth, 16, 1, EQ_MAX_RULE_DEPTH, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.rule_fan_out",
		"Most actions of rules that one event may lead to.",
		"Those for the event itself do not count; past it no rule fires for what it led to.",
		&eq_rule_fan_out, 10000, 1, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.condition_timeout",
		"Longest time that the condition of a rule may take for one event.", NULL,
		&eq_condition_timeout, 1000, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL,
		NULL);
	DefineCustomIntVariable(
		"event_queue.append_timeout",
		"Longest time that a transaction of a role bound to a tenant may hold back the events of all.",
		"Then its session is terminated; 0: never.", &eq_append_timeout,
		10 * 60 * 1000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.keep_audit",
		"How long rows of the audit log and resolved alerts are kept; 0: forever.",
		NULL, &eq_keep_audit_min, 365 * 24 * 60, 0, INT_MAX, PGC_SIGHUP,
		GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.rule_notify_limit",
		"Per cent of the NOTIFY queue above which actions of rules that notify wait.",
		NULL, &eq_rule_notify_limit, 90, 0, 100, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.keep_rule_runs",
		"How long it is kept for which events rules have fired.",
		"What is older, backfill_rule does not do, and rule_runs does not show.",
		&eq_keep_rule_runs_s, 7 * 24 * 3600, 3600, INT_MAX, PGC_SIGHUP, GUC_UNIT_S,
		NULL, NULL, NULL);
	DefineCustomIntVariable("event_queue.alert_interval",
							"How often alerts are looked at; 0: not at all.", NULL,
							&eq_alert_interval_ms, 5000, 0, 3600 * 1000, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("event_queue.max_databases",
							"Most databases of this server that use the extension.",
							NULL, &eq_max_databases, 64, 1, 10000, PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.max_queues",
		"Most queues and notify channels, of all databases, that have counters and wake-ups of their own.",
		NULL, &eq_max_queues, 16384, 16, 1000000, PGC_POSTMASTER, 0, NULL, NULL,
		NULL);
	DefineCustomIntVariable(
		"event_queue.max_limited_leases",
		"Most jobs leased at a time in queues with max_concurrency, of all databases.",
		NULL, &eq_max_limited_leases, 65536, 64, 10000000, PGC_POSTMASTER, 0, NULL,
		NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.max_subscription_members",
		"Most sessions that share subscriptions with several buckets, of all databases.",
		"A session counts once for each such subscription.", &eq_max_members, 1024,
		16, 16384, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.max_job_stats",
		"Most job names, in queues of all databases, that have counters and histograms of their own.",
		"Each takes 14 kB of shared memory; the rest is counted together.",
		&eq_max_job_stats, 1000, 16, 100000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.max_tenant_stats",
		"Most tenants, of all databases, that have counters and histograms of their own: the busiest.",
		"Each takes 14 kB of shared memory; the rest is counted together.",
		&eq_max_tenant_stats, 100, 16, 100000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.keep_metrics",
		"How many days samples of counters and histograms are kept.", NULL,
		&eq_keep_metrics, 30, 2, 3650, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"event_queue.max_prometheus_size",
		"How large what prometheus() tells of job names may become; the rest is left out.",
		NULL, &eq_max_prometheus_size, 262144, 16, 524288, PGC_SIGHUP, GUC_UNIT_KB,
		NULL, NULL, NULL);
	MarkGUCPrefixReserved("event_queue");
}

static void
request_shared_memory(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	eq_request_shared_memory();
}

static void
attach_shared_memory(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	eq_attach_shared_memory();
}

/* Drops the statement, by CASCADE, what the extension needs: its schema, or plpgsql? */
static bool
drops_what_it_needs(DropStmt *drop, const char *name)
{
	Oid user = GetUserId();
	Oid oid;

	if (drop->behavior != DROP_CASCADE)
		return false;
	if (drop->removeType == OBJECT_SCHEMA && strcmp(name, EQ_SCHEMA) == 0)
		return OidIsValid(oid = get_namespace_oid(name, true)) &&
			   eq_owns_schema(oid, user);
	return drop->removeType == OBJECT_EXTENSION && strcmp(name, "plpgsql") == 0 &&
		   OidIsValid(oid = get_extension_oid(name, true)) &&
		   eq_owns_extension(oid, user);
}

/* Drops the statement the extension?  Who may not do it gets the statement's own error. */
static bool
drops_event_queue(Node *stmt)
{
	bool is_drop = IsA(stmt, DropStmt) &&
				   (((DropStmt *) stmt)->removeType == OBJECT_EXTENSION ||
					((DropStmt *) stmt)->removeType == OBJECT_SCHEMA);
	Oid extension;
	ListCell *lc;

	if (!is_drop && !IsA(stmt, DropOwnedStmt))
		return false;
	extension = get_extension_oid(EQ_EXTENSION, true);
	if (!OidIsValid(extension) || eq_find_database(MyDatabaseId) == NULL)
		return false;
	if (is_drop)
	{
		DropStmt *drop = (DropStmt *) stmt;

		foreach (lc, drop->objects)
		{
			const char *name = strVal(lfirst(lc));

			if ((drop->removeType == OBJECT_EXTENSION &&
				 strcmp(name, EQ_EXTENSION) == 0 &&
				 eq_owns_extension(extension, GetUserId())) ||
				drops_what_it_needs(drop, name))
				return true;
		}
		return false;
	}
	foreach (lc, ((DropOwnedStmt *) stmt)->roles)
	{
		Oid role = get_rolespec_oid(lfirst_node(RoleSpec, lc), true);

		if (OidIsValid(role) && role == eq_extension_owner() &&
			has_privs_of_role(GetUserId(), role))
			return true;
	}
	return false;
}

/* What is to be done beside a statement. */
typedef struct Statement
{
	bool sets_constraints;
	bool subscribes;
	bool updates;
	bool commits_prepared;
	bool drops;	   /* the extension */
	bool restores; /* as eq_before_statement says */
	Oid loaded;
} Statement;

/* Reads the statement before it runs: a procedure that rolls back may free it. */
static void
before_statement(Node *stmt, Statement *this)
{
	const char *dbname = eq_database_emptied_by(stmt);
	Oid dboid = dbname ? get_database_oid(dbname, true) : InvalidOid;

	this->sets_constraints = IsA(stmt, ConstraintsSetStmt);
	this->subscribes = IsA(stmt, CreateSubscriptionStmt) ||
					   IsA(stmt, AlterSubscriptionStmt);
	this->updates = IsA(stmt, AlterExtensionStmt) &&
					strcmp(((AlterExtensionStmt *) stmt)->extname, EQ_EXTENSION) ==
						0;
	this->commits_prepared = IsA(stmt, TransactionStmt) &&
							 ((TransactionStmt *) stmt)->kind ==
								 TRANS_STMT_COMMIT_PREPARED;
	this->drops = drops_event_queue(stmt);
	this->restores = eq_before_statement(stmt, &this->loaded);

	eq_refuse_unheeded(stmt, this->restores);
	/* Workers would deadlock with it: they are away until it has committed. */
	if (this->drops)
		eq_send_workers_away_until_end(MyDatabaseId);

	/* A role that may not drop it gets the statement's own error. */
	if (OidIsValid(dboid) && eq_owns_database(dboid, GetUserId()))
		eq_send_workers_away_until_end(dboid);
	if (this->commits_prepared)
		eq_before_commit_prepared();
}

/* The statement has done its work. */
static void
after_statement(const Statement *this)
{
	if (this->commits_prepared)
		eq_after_commit_prepared();
	eq_after_load(this->loaded);
	if (this->sets_constraints)
		eq_note_constraints_set();
	if (this->subscribes)
		eq_note_subscription();
	/* The commit frees what shared memory has of the database. */
	if (this->drops && !OidIsValid(get_extension_oid(EQ_EXTENSION, true)))
		eq_note_extension_dropped();
	if (this->updates)
		eq_note_config_changed(); /* workers may wait for it */
}

/*
 * Lets DROP DATABASE and its kin proceed by sending the workers of the database
 * away first, and has the scheduler notice DROP EXTENSION at once.
 */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Statement this;

	before_statement(pstmt->utilityStmt, &this);
	PG_TRY();
	{
		if (prev_process_utility_hook)
			prev_process_utility_hook(pstmt, query, read_only_tree, context, params,
									  env, dest, qc);
		else
			standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
									env, dest, qc);
		after_statement(&this);
	}
	PG_FINALLY();
	{
		eq_after_statement(this.restores);
	}
	PG_END_TRY();
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_NOT_PRELOADED),
			 errmsg("event_queue must be loaded via shared_preload_libraries"),
			 errhint(
				 "Add this line to postgresql.conf and restart the server: shared_preload_libraries = 'event_queue'")));

	define_settings();
	eq_tenant_access_hook = eq_note_tenant_access;

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = attach_shared_memory;
	prev_process_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	eq_register_xact_callbacks();

	eq_register_launcher();
}

Datum
eq_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(EQ_VERSION));
}
