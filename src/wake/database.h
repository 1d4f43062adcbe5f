/*
 * database.h: a database's entry in shared memory: its workers, and the flags that tell them
 * what to do.
 */
#ifndef EQ_DATABASE_H
#define EQ_DATABASE_H

#include "event_queue.h"
#include "port/atomics.h"

/* One database that has the extension.  Its dboid doesn't change while a session of
 * that database lives. */
typedef struct EqDatabase
{
	Oid dboid; /* InvalidOid: free */

	/* Processes to be woken: proc number + 1; 0: none. */
	pg_atomic_uint32 scheduler;
	pg_atomic_uint32 rule_runner;
	pg_atomic_uint64 scheduler_due;	 /* when its next cycle must have begun */
	pg_atomic_uint64 scheduler_tick; /* when its last one began */

	/* And what for. */
	pg_atomic_uint32 events_pending;  /* events were appended or freed: snapshots */
	pg_atomic_uint32 rules_pending;	  /* likewise: rules */
	pg_atomic_uint32 events_wanted;	  /* who reads them: EQ_EVENTS_FOR_... */
	pg_atomic_uint32 reviews_pending; /* job_review has rows */
	pg_atomic_uint32 waits_pending;	  /* steps may have what they wait for */
	pg_atomic_uint32 event_waiters;	  /* some step waits for an event */
	pg_atomic_uint32 cancels_pending; /* a leased job was cancelled */
	pg_atomic_uint32 look_everywhere; /* jobs came that name no queue */
	pg_atomic_uint32 recount;		  /* commits passed the counters by */

	/* Does some session sleep?  See sleepers.c. */
	pg_atomic_uint32 events_awaited;
	pg_atomic_uint32 jobs_awaited;

	/* Generations, which only increase: a cache is valid while its own is the same. */
	pg_atomic_uint32 config_generation; /* configuration changed */
	pg_atomic_uint32 config_commits; /* transactions that will raise it, or abort */
	pg_atomic_uint64 unseen_jobs;	 /* came by plain SQL, or back at an abort */

	int n_slots;	   /* with the lock of slots held; see slot.c */
	int without_slots; /* queues and channels, as the scheduler saw */

	/* For the launcher; see worker/launcher.c. */
	pg_atomic_uint32 absent;  /* the extension was dropped */
	pg_atomic_uint32 drops;	  /* how often it was */
	pg_atomic_uint32 blocked; /* > 0: workers must stay away (DROP DATABASE) */
} EqDatabase;

#define EQ_EVENTS_FOR_RULES		1 /* the rule runner */
#define EQ_EVENTS_FOR_SNAPSHOTS 2 /* the scheduler */

/* A scheduler whose next cycle is so late counts as stuck. */
#define EQ_SCHEDULER_GRACE_US (10 * USECS_PER_SEC)

extern EqDatabase *eq_database_entries; /* eq_max_databases */
extern const EqSharedPart eq_databases_part;

extern EqDatabase *eq_database(void);
extern EqDatabase *eq_find_database(Oid dboid);
extern void eq_forget_database(Oid dboid);

/* Under this number other parts of shared memory keep what is theirs of it. */
static inline int
eq_database_number(const EqDatabase *db)
{
	return db - eq_database_entries;
}

/* The launcher looks for databases that came, or went. */
extern void eq_enter_launcher(void);
extern void eq_leave_launcher(void);
extern void eq_ask_launcher(void);
extern bool eq_launcher_is_asked(void);

#endif /* EQ_DATABASE_H */
