/*
 * batch.c: settles or extends many leases in one call: each that the caller still holds.
 *
 * Returns a row for each lease that says what became of it.  Locks jobs in the order of
 * their ids, as all calls for many jobs do, so that two calls cannot deadlock.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "queue/lease.h"

PG_FUNCTION_INFO_V1(eq_complete_many);
PG_FUNCTION_INFO_V1(eq_fail_many);
PG_FUNCTION_INFO_V1(eq_extend_leases);

/* One lease of a call. */
typedef struct LeaseItem
{
	int64 job_id;
	const pg_uuid_t *token;
	int nth; /* in the arguments */
	const char *state;
	TimestampTz at; /* 0: NULL */
} LeaseItem;

static int
compare_items(const void *a, const void *b)
{
	const LeaseItem *x = a;
	const LeaseItem *y = b;

	if (x->job_id != y->job_id)
		return x->job_id < y->job_id ? -1 : 1;
	return x->nth - y->nth;
}

static int
compare_nth(const void *a, const void *b)
{
	return ((const LeaseItem *) a)->nth - ((const LeaseItem *) b)->nth;
}

/* job_ids and lease_tokens are the first two arguments; sorted by job_id. */
static LeaseItem *
read_items(FunctionCallInfo fcinfo, int *n)
{
	Datum *ids = NULL;
	Datum *tokens = NULL;
	bool *id_nulls = NULL;
	bool *token_nulls = NULL;
	int n_tokens = 0;
	LeaseItem *items;

	*n = 0;
	if (!PG_ARGISNULL(0))
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, 8, FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &ids, &id_nulls, n);
	if (!PG_ARGISNULL(1))
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), UUIDOID, UUID_LEN, false,
						  TYPALIGN_CHAR, &tokens, &token_nulls, &n_tokens);
	if (*n != n_tokens)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("job_ids and lease_tokens must be equally long")));
	items = palloc0(Max(*n, 1) * sizeof(LeaseItem));
	for (int i = 0; i < *n; i++)
	{
		if (id_nulls[i] || token_nulls[i])
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
							errmsg("job_id and lease_token must not be null"),
							errdetail("Element %d has none.", i + 1)));
		items[i].job_id = DatumGetInt64(ids[i]);
		items[i].token = DatumGetUUIDP(tokens[i]);
		items[i].nth = i;
	}
	qsort(items, *n, sizeof(LeaseItem), compare_items);
	return items;
}

static Datum
return_items(FunctionCallInfo fcinfo, LeaseItem *items, int n)
{
	ReturnSetInfo *rsinfo;

	InitMaterializedSRF(fcinfo, 0);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	qsort(items, n, sizeof(LeaseItem), compare_nth);
	for (int i = 0; i < n; i++)
	{
		Datum values[3] = {Int64GetDatum(items[i].job_id),
						   CStringGetTextDatum(items[i].state),
						   TimestampTzGetDatum(items[i].at)};
		bool nulls[3] = {false, false, items[i].at == 0};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * Completes what is still the caller's of the leases that the first arguments name;
 * results are the argument at this index.  all: EQ016 if one is lost.
 */
static LeaseItem *
complete_items(FunctionCallInfo fcinfo, int results_argno, bool all, int *n)
{
	LeaseItem *items = read_items(fcinfo, n);
	Datum *results = NULL;
	bool *result_nulls = NULL;
	int n_results = 0;
	EqLeased leased;

	if (!PG_ARGISNULL(results_argno))
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(results_argno), JSONBOID, -1, false,
						  TYPALIGN_INT, &results, &result_nulls, &n_results);
	if (n_results != 0 && n_results != *n)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("job_ids and results must be equally long")));
	if (*n == 0)
		return items;
	eq_open_jobs(&leased);
	for (int i = 0; i < *n; i++)
	{
		LeaseItem *item = &items[i];
		Jsonb *result = NULL;

		CHECK_FOR_INTERRUPTS();
		if (n_results > 0 && !result_nulls[item->nth])
		{
			result = DatumGetJsonbP(results[item->nth]);
			eq_check_payload("job result", result);
		}
		item->state = "completed";
		/* Twice in the list: the second time its lease is lost. */
		if ((i > 0 && item->job_id == items[i - 1].job_id) ||
			!eq_try_complete(&leased, item->job_id, item->token, result))
		{
			if (all)
				eq_lease_lost(item->job_id);
			item->state = "lost";
		}
	}
	eq_close_jobs(&leased);
	return items;
}

Datum
eq_complete_many(PG_FUNCTION_ARGS)
{
	int n;
	LeaseItem *items = complete_items(fcinfo, 2, false, &n);

	return return_items(fcinfo, items, n);
}

/* For complete_many_and_claim. */
void
eq_complete_all(FunctionCallInfo fcinfo, int results_argno)
{
	int n;

	(void) complete_items(fcinfo, results_argno, true, &n);
}

static const char *
text_argument(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

Datum
eq_fail_many(PG_FUNCTION_ARGS)
{
	int n;
	LeaseItem *items = read_items(fcinfo, &n);
	const char *message = text_argument(fcinfo, 2);
	const char *sqlstate = eq_sqlstate_argument(fcinfo, 3);
	const char *context = text_argument(fcinfo, 4);
	int64 retry_after = -1;
	bool final = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6);

	if (!PG_ARGISNULL(5))
		retry_after = eq_check_delay(PG_GETARG_INTERVAL_P(5), "retry_after");
	for (int i = 0; i < n; i++)
	{
		LeaseItem *item = &items[i];
		EqLeased leased;

		CHECK_FOR_INTERRUPTS();
		item->state = "lost";
		if (eq_try_leased(&leased, item->job_id, item->token, false))
		{
			item->at = eq_fail_leased(&leased, item->job_id, message, NULL, sqlstate,
									  context, retry_after, final);
			item->state = item->at == 0 ? "dead" : "retrying";
		}
		eq_close_jobs(&leased);
	}
	return return_items(fcinfo, items, n);
}

Datum
eq_extend_leases(PG_FUNCTION_ARGS)
{
	int n;
	LeaseItem *items = read_items(fcinfo, &n);
	int64 lease = eq_lease_argument(fcinfo, 2);

	for (int i = 0; i < n; i++)
	{
		LeaseItem *item = &items[i];
		EqLeased leased;

		CHECK_FOR_INTERRUPTS();
		item->state = "lost";
		/* As extend_lease: the write need not be durable. */
		if (eq_try_leased(&leased, item->job_id, item->token, true))
		{
			if (DatumGetBool(leased.slot->tts_values[JOB_CANCEL - 1]))
				item->state = "cancelled";
			else
			{
				item->at = eq_extend_leased(&leased, item->job_id, lease);
				if (item->at != 0)
					item->state = "leased";
			}
		}
		eq_close_jobs(&leased);
	}
	return return_items(fcinfo, items, n);
}
