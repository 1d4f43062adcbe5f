/*
 * claim_sql.c: reads the arguments and builds the results of the SQL functions that claim.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/interval.h"
#include "queue/queue.h"
#include "store/store.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_claim_sql);
PG_FUNCTION_INFO_V1(eq_complete_many_and_claim);
PG_FUNCTION_INFO_V1(eq_complete_and_claim);

#define MAX_CLAIM			10000
#define CLAIMED_JOB_COLUMNS 16

/* Fills the columns of the composite type claimed_job. */
static void
fill_claimed_job(const EqQueue *queue, const EqClaimedJob *job, Datum *values,
				 bool *nulls)
{
	int i = 0;

	memset(nulls, 0, CLAIMED_JOB_COLUMNS * sizeof(bool));
	values[i++] = Int64GetDatum(job->job_id);
	values[i++] = UUIDPGetDatum(&job->token);
	values[i++] = CStringGetTextDatum(queue->name);
	values[i++] = CStringGetTextDatum(job->name);
	values[i++] = CStringGetTextDatum(job->tenant);
	values[i++] = JsonbPGetDatum(job->payload);
	values[i++] = JsonbPGetDatum(job->metadata);
	values[i++] = Int32GetDatum(job->failures + 1);
	values[i++] = Int32GetDatum(job->max_attempts);
	values[i++] = Int32GetDatum(job->stalled);
	values[i++] = Int32GetDatum(job->priority);
	values[i++] = TimestampTzGetDatum(job->created_at);
	values[i++] = TimestampTzGetDatum(job->run_at);
	values[i++] = TimestampTzGetDatum(job->leased_until);
	nulls[i] = job->group_key == NULL;
	values[i++] = job->group_key ? CStringGetTextDatum(job->group_key) : (Datum) 0;
	nulls[i] = job->time_limit == 0;
	values[i++] = Int32GetDatum((int32) Max(job->time_limit / 1000, 1));
	Assert(i == CLAIMED_JOB_COLUMNS);
}

/* Makes a value of the composite type claimed_job. */
Datum
eq_claimed_job_datum(const EqQueue *queue, const EqClaimedJob *job, TupleDesc desc)
{
	Datum values[CLAIMED_JOB_COLUMNS];
	bool nulls[CLAIMED_JOB_COLUMNS];

	fill_claimed_job(queue, job, values, nulls);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/* Reads the arguments of claim from "queue" on, which begin at first. */
static void
claim_arguments(FunctionCallInfo fcinfo, int first, EqClaim *claim)
{
	memset(claim, 0, sizeof(EqClaim));
	claim->queue = eq_get_queue(
		PG_ARGISNULL(first) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(first)));
	claim->limit = PG_ARGISNULL(first + 1) ? 1 : PG_GETARG_INT32(first + 1);
	eq_check_claim_limit(claim->limit);
	claim->worker = eq_worker_argument(fcinfo, first + 2);
	claim->lease = eq_lease_argument(fcinfo, first + 3);
	if (!PG_ARGISNULL(first + 4))
	{
		Datum *names;
		bool *nulls;
		int n;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(first + 4), TEXTOID, -1, false,
						  TYPALIGN_INT, &names, &nulls, &n);
		claim->names = palloc0(Max(n, 1) * sizeof(char *));
		for (int i = 0; i < n; i++)
		{
			if (!nulls[i])
				claim->names[claim->n_names++] = TextDatumGetCString(names[i]);
		}
	}
	claim->tenant = eq_claim_tenant(fcinfo, first + 5);
	claim->session_bound = !PG_ARGISNULL(first + 6) && PG_GETARG_BOOL(first + 6);
}

/* Checks the number of jobs of one claim. */
void
eq_check_claim_limit(int limit)
{
	if (limit < 1 || limit > MAX_CLAIM)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("max_jobs must be between 1 and %d", MAX_CLAIM)));
}

/* Reads the name of the worker; by default that of the session. */
const char *
eq_worker_argument(FunctionCallInfo fcinfo, int argno)
{
	char *worker;

	if (PG_ARGISNULL(argno))
	{
		const char *name = application_name ? application_name : "";
		int length = strlen(name);

		worker = palloc(length + 14);
		memcpy(worker, name, length);
		worker[length] = ' ';
		pg_ltoa(MyProcPid, worker + length + 1);
		return worker;
	}
	worker = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	eq_check_name("worker", worker, EQ_MAX_NAME);
	return worker;
}

/* Reads the length of the lease in microseconds; 0: the queue's. */
int64
eq_lease_argument(FunctionCallInfo fcinfo, int argno)
{
	int64 lease;

	if (PG_ARGISNULL(argno))
		return 0;
	lease = eq_interval_us(PG_GETARG_INTERVAL_P(argno));
	if (lease <= 0 || lease > 7 * USECS_PER_DAY)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
						errmsg("lease must be positive and at most 7 days")));
	return lease;
}

/* Reads the tenant whose jobs may be claimed; NULL: any. */
const char *
eq_claim_tenant(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return eq_confined_tenant();
	return eq_resolve_tenant(text_to_cstring(PG_GETARG_TEXT_PP(argno)));
}

/* Claims, and returns the jobs as a set. */
static Datum
claim_and_return(FunctionCallInfo fcinfo, EqClaim *claim)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo,
						rsinfo && IsA(rsinfo, ReturnSetInfo) && rsinfo->expectedDesc
							? MAT_SRF_USE_EXPECTED_DESC
							: 0);
	eq_claim(claim);
	for (int i = 0; i < claim->n_jobs; i++)
	{
		Datum values[CLAIMED_JOB_COLUMNS];
		bool nulls[CLAIMED_JOB_COLUMNS];

		fill_claimed_job(claim->queue, &claim->jobs[i], values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
eq_claim_sql(PG_FUNCTION_ARGS)
{
	EqClaim claim;

	claim_arguments(fcinfo, 0, &claim);
	return claim_and_return(fcinfo, &claim);
}

Datum
eq_complete_and_claim(PG_FUNCTION_ARGS)
{
	EqClaim claim;

	claim_arguments(fcinfo, 2, &claim);
	if (!PG_ARGISNULL(0))
	{
		Jsonb *result = PG_ARGISNULL(9) ? NULL : PG_GETARG_JSONB_P(9);

		if (result)
			eq_check_payload("job result", result);
		if (PG_ARGISNULL(1))
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
							errmsg("job_id and lease_token must not be null")));
		eq_complete(PG_GETARG_INT64(0), PG_GETARG_UUID_P(1), result, false);
	}
	return claim_and_return(fcinfo, &claim);
}

Datum
eq_complete_many_and_claim(PG_FUNCTION_ARGS)
{
	EqClaim claim;

	claim_arguments(fcinfo, 2, &claim);
	eq_complete_all(fcinfo, 9);
	return claim_and_return(fcinfo, &claim);
}
