/*
 * lease.h: a job found and locked by its lease or its id; for this room and src/steps.
 */
#ifndef EQ_LEASE_H
#define EQ_LEASE_H

#include "fmgr.h"
#include "utils/uuid.h"

#include "queue/job_row.h"
#include "queue/queue.h"
#include "table/table.h"

/* The table, and a job in it whose lease the caller holds. */
typedef struct EqLeased
{
	EqTable jobs;
	Snapshot snapshot;
	TupleTableSlot *slot; /* all columns fetched */
	const EqQueue *queue; /* of the job */
	const char *tenant;	  /* the caller is confined to; NULL: none */
	TimestampTz now;
	bool unless_cancelled; /* eq_try_complete: EQ033 then */
	bool weak;			   /* the writes need not be durable */
} EqLeased;

extern void eq_lease_lost(int64 job_id) pg_attribute_noreturn();
extern void eq_open_jobs(EqLeased *leased);
extern void eq_close_jobs(EqLeased *leased);
extern bool eq_find_job(EqLeased *leased, int64 job_id, const pg_uuid_t *token);
extern bool eq_lock_job(EqLeased *leased);
extern bool eq_has_token(TupleTableSlot *slot, const pg_uuid_t *token);
extern bool eq_load_queue_if_visible(EqLeased *leased, int64 job_id);
extern void eq_begin_weak(EqLeased *leased);
extern bool eq_try_leased(EqLeased *leased, int64 job_id, const pg_uuid_t *token,
						  bool weak);
extern bool eq_try_complete(EqLeased *leased, int64 job_id, const pg_uuid_t *token,
							Jsonb *result);
extern TimestampTz eq_extend_leased(EqLeased *leased, int64 job_id, int64 lease);
extern TimestampTz eq_fail_leased(EqLeased *leased, int64 job_id,
								  const char *message, const char *detail,
								  const char *sqlstate, const char *context,
								  int64 retry_after, bool final);
extern void eq_open_leased(EqLeased *leased, int64 job_id, const pg_uuid_t *token,
						   bool weak);
extern void eq_check_not_cancelled(EqLeased *leased, int64 job_id);
extern void eq_after_lease(EqLeased *leased, int64 job_id, bool leaves_group);
extern int64 eq_job_id_argument(FunctionCallInfo fcinfo);

#endif /* EQ_LEASE_H */
