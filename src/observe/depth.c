/*
 * depth.c: counts how many jobs of a queue are due and how many are scheduled, by a
 * bounded scan of the index that claims walk.
 */
#include "postgres.h"

#include "fmgr.h"

#include "event_queue.h"
#include "queue/queue.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_count_due_sql);
PG_FUNCTION_INFO_V1(eq_count_scheduled_sql);
PG_FUNCTION_INFO_V1(eq_any_leased_sql);

Datum
eq_count_due_sql(PG_FUNCTION_ARGS)
{
	const EqQueue *queue = eq_get_queue_by_id(PG_GETARG_INT32(0));

	if (queue == NULL || eq_is_bound())
		PG_RETURN_NULL();
	PG_RETURN_INT64(eq_count_due(queue, PG_GETARG_INT32(1)));
}

Datum
eq_count_scheduled_sql(PG_FUNCTION_ARGS)
{
	const EqQueue *queue = eq_get_queue_by_id(PG_GETARG_INT32(0));

	if (queue == NULL || eq_is_bound())
		PG_RETURN_NULL();
	PG_RETURN_INT64(eq_count_scheduled(queue, PG_GETARG_INT32(1)));
}

Datum
eq_any_leased_sql(PG_FUNCTION_ARGS)
{
	const EqQueue *queue = eq_get_queue_by_id(PG_GETARG_INT32(0));

	PG_RETURN_BOOL(queue != NULL && eq_any_leased(queue, PG_GETARG_INT32(1)));
}
