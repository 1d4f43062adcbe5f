/*
 * work.h: shared by the files of "eventq work": a slot for each job that it holds.
 *
 * A slot goes free -> running -> ended -> free.  Running: the child lives.  Ended: it was
 * reaped, and settle says how the job is to be settled; the slot is free when the server
 * has confirmed that, or when the lease is lost.
 */
#ifndef EVENTQ_WORK_H
#define EVENTQ_WORK_H

#include <sys/types.h>

#include "eventq.h"

/* More output than this is a failure; of stderr the last bytes are kept. */
#define MAX_OUTPUT	(16 * 1024 * 1024)
#define KEPT_STDERR 4096

#define EXIT_TRY_LATER 75 /* EX_TEMPFAIL */
#define EXIT_DEAD	   100

typedef enum SlotState
{
	SLOT_FREE,
	SLOT_RUNNING,
	SLOT_ENDED
} SlotState;

typedef enum Settle
{
	SETTLE_COMPLETE,
	SETTLE_FAIL,
	SETTLE_FAIL_FINAL,
	SETTLE_RELEASE,	  /* to be tried later, after later_delay */
	SETTLE_GIVE_BACK, /* released at once, for others */
	SETTLE_NOTHING	  /* the lease is lost */
} Settle;

/* Why we stop a child. */
typedef enum Stop
{
	STOP_NOT,
	STOP_LOST,		/* the lease is, or may be, someone else's */
	STOP_CANCELLED, /* cancel_job */
	STOP_TIME_LIMIT,
	STOP_GRACE, /* our own end */
	STOP_OUTPUT /* it writes too much */
} Stop;

typedef struct Slot
{
	SlotState state;
	char job_id[24];
	char token[40];
	char *name;
	double started;
	double lease_end;  /* by our clock, from before the claim or renewal was sent */
	double time_limit; /* when the child is stopped; 0: never */

	pid_t pid;
	int in, out, err; /* our ends of its pipes; -1: closed */
	EqBuf payload;
	size_t written; /* of payload */
	EqBuf output;
	EqBuf error;	  /* the tail of stderr */
	EqBuf error_line; /* a line that has not ended yet */
	Stop stop;
	double kill_at; /* SIGKILL then; 0: not asked to stop yet */

	Settle settle;
	EqBuf message;
	double settle_at;	/* not before */
	double retry_after; /* seconds, as the child said; 0: by the queue's settings */
	bool as_text;		/* the output is no JSON */
	bool as_ascii;		/* the database's encoding lacks what the child said */
} Slot;

typedef struct Work
{
	EqCli *cli;
	const char *queue;
	char **command;			 /* what a child is ... */
	int (*run)(void);		 /* ... or does, and its exit status */
	const char *payload_sql; /* what it reads, of a claimed job */
	char worker[128];
	const char *lease; /* NULL: the queue's */
	const char *job_names;
	const char *tenant;
	const char *later_delay;
	bool session_bound;
	bool until_empty;
	double grace;
	double look;   /* seconds between claims when nothing wakes us */
	long max_jobs; /* 0: any number */

	Slot *slots;
	int n_slots;
	long n_claimed;
	double stopping;   /* since when; 0: not */
	double grace_ends; /* then children are stopped */
	int exit_code;
} Work;

/* work.c */
extern double eq_now(void);
extern void eq_work_log(Work *work, const char *fmt, ...) EQ_PRINTF(2, 3);
extern void eq_work_stop(Work *work, int exit_code);
extern int eq_work_free_slots(const Work *work);

/* work_child.c */
struct pollfd;
extern void eq_slot_init(Slot *slot);
extern void eq_slot_clear(Slot *slot);
extern void eq_child_start(Work *work, Slot *slot, const PGresult *job, int row);
extern void eq_child_stop(Work *work, Slot *slot, Stop why);
extern int eq_child_poll(const Slot *slot, struct pollfd *fds);
extern void eq_child_io(Work *work, Slot *slot, int fd);
extern void eq_children_reap(Work *work);

/* work_server.c */
extern void eq_server_open(Work *work);
extern void eq_server_close(Work *work);
extern bool eq_server_idle(void);
extern bool eq_server_poll(Work *work, struct pollfd *fd);
extern void eq_server_io(Work *work);
extern void eq_server_turn(Work *work);
extern double eq_server_next(const Work *work);

#endif /* EVENTQ_WORK_H */
