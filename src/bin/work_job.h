/*
 * work_job.h: the columns of the claim that work_jobs.c sends, in their order; %s: the
 * payload, as the child reads it.
 */
#ifndef EVENTQ_WORK_JOB_H
#define EVENTQ_WORK_JOB_H

enum
{
	JOB_ID,
	JOB_TOKEN,
	JOB_NAME,
	JOB_TENANT,
	JOB_PAYLOAD,
	JOB_METADATA,
	JOB_ATTEMPT,
	JOB_MAX_ATTEMPTS,
	JOB_STALLED,
	JOB_PRIORITY,
	JOB_CREATED_AT,
	JOB_RUN_AT,
	JOB_GROUP_KEY,
	JOB_TIME_LIMIT_MS,
	JOB_LEASE_SECONDS
};

#define JOB_COLUMNS                                                                 \
	"job_id, lease_token, name, tenant_id, %s, metadata, attempt, max_attempts, "   \
	"stalled, priority, created_at, run_at, group_key, time_limit_ms, "             \
	"extract(epoch FROM leased_until - clock_timestamp())"

#endif /* EVENTQ_WORK_JOB_H */
