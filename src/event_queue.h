/*
 * event_queue.h: the settings, and what a part of shared memory is.
 *
 * Shared memory holds nothing that a restart may not lose: what must survive is in
 * tables, and is read again by the first process that needs it.
 */
#ifndef EQ_EVENT_QUEUE_H
#define EQ_EVENT_QUEUE_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

#include "errors.h"
#include "update/version.h"

#define EQ_SCHEMA		  "event_queue"
#define EQ_INTERNAL		  "event_queue_internal"
#define EQ_EXTENSION	  "event_queue"
#define EQ_VERSION		  "0.2.0"
#define EQ_DEFAULT_TENANT "default"
#define EQ_MAX_NAME		  255 /* bytes of a tenant, type, id or job name */
#define EQ_MAX_EXECUTORS  64

/* Settings (event_queue.c defines and documents them). */
typedef enum EqNotifyMode
{
	EQ_NOTIFY_WORKER,	   /* the scheduler notifies, after commit */
	EQ_NOTIFY_TRANSACTION, /* each enqueue notifies, in its transaction */
	EQ_NOTIFY_OFF
} EqNotifyMode;

extern char *eq_tenant;
extern char *eq_actor;
extern char *eq_correlation_id;
extern char *eq_causation_id;
extern char *eq_rule_chain;
extern int eq_publish_interval_ms;
extern bool eq_require_tenant;
extern int eq_max_payload_kb;
extern int eq_notify_mode;
extern int eq_executors;
extern int eq_executor_memory_kb;
extern int eq_handler_batch_ms;
extern char *eq_databases;
extern bool eq_activate_copies;
extern int eq_rule_batch;
extern int eq_condition_timeout;
#define EQ_MAX_RULE_DEPTH 100
extern int eq_rule_depth;		 /* rules/chain.c */
extern int eq_rule_fan_out;		 /* rules/fan_out.c */
extern int eq_rule_notify_limit; /* rules/notify.c */
extern int eq_keep_rule_runs_s;	 /* rules/runs.c */
extern int eq_stuck_after_ms;
extern int eq_append_timeout;
extern int eq_keep_audit_min;
extern int eq_alert_interval_ms;
extern int eq_max_databases;
extern int eq_max_queues;
extern int eq_max_limited_leases;

/*
 * A part of shared memory.  It is a variable of the file that owns it, and knows its
 * size and how it begins; shared_memory.c lists all parts.
 */
typedef struct EqSharedPart
{
	const char *name; /* in pg_shmem_allocations; also of its LWLocks' tranche */
	int n_locks;
	Size (*size)(void);
	Size (*size_beside)(void); /* of what attach allocates itself; NULL: nothing */

	/* In each process that is not forked; memory is zero if it is new. */
	void (*attach)(void *memory, LWLockPadded *locks, bool is_new);

	/*
	 * What it keeps of a database or a slot, by number, when the place is taken for
	 * another one or given back; NULL: nothing.  Called with the lock of databases or of
	 * slots held (end_database: without), so none may throw.
	 */
	void (*begin_database)(int number);
	void (*end_database)(Oid dboid);
	void (*begin_slot)(int number);
	void (*end_slot)(int number);
} EqSharedPart;

extern void eq_request_shared_memory(void);
extern void eq_attach_shared_memory(void);
extern void eq_begin_database(int number);
extern void eq_end_database(Oid dboid);
extern void eq_begin_slot(int number);
extern void eq_end_slot(int number);

/*
 * Of what there is of some room, one database may have so many times as much as it
 * leaves free: whoever comes first, something is left for the others.
 */
#define EQ_SHARE_OF_DATABASE 3

static inline bool
eq_is_fair_share(int64 has, int64 wants, int64 free, int times)
{
	return has + wants <= times * (free - wants);
}

#endif /* EQ_EVENT_QUEUE_H */
