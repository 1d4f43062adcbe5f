/*
 * limit_settings.c: the triggers on the settings of limits and on TRUNCATE of the jobs,
 * and what explain_job shows.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/interval.h"
#include "queue/limits.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_limits_changed);
PG_FUNCTION_INFO_V1(eq_leases_truncated);
PG_FUNCTION_INFO_V1(eq_queue_limits);
PG_FUNCTION_INFO_V1(eq_age_bucket);

#define SHOWN_LEASES 100

static int64
setting(HeapTuple row, TupleDesc desc, const char *name)
{
	int column = SPI_fnumber(desc, name);
	bool isnull;
	Datum value;

	if (row == NULL)
		return 0;
	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("limits_changed: the table has no column \"%s\"", name)));
	value = heap_getattr(row, column, desc, &isnull);
	if (isnull)
		return 0;
	if (TupleDescAttr(desc, column - 1)->atttypid == INTERVALOID)
		return eq_interval_us(DatumGetIntervalP(value));
	return DatumGetInt32(value);
}

/*
 * Trigger on table queue: limits are set, changed or lifted.  That holds from the
 * commit on; but a bucket that was not there begins at once, full.
 */
Datum
eq_limits_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc desc;
	HeapTuple before;
	HeapTuple after;
	int32 queue_id;
	int32 rate_limit;
	int64 rate_interval;
	int32 old_rate_limit;
	bool counts;
	bool counted;
	EqWakeSlot *slot;
	EqLimits *limits;
	bool changes;
	EqLimitChange *change;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("limits_changed: not called by its trigger")));
	desc = RelationGetDescr(trigger->tg_relation);
	before = TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? NULL
														: trigger->tg_trigtuple;
	after = TRIGGER_FIRED_BY_INSERT(trigger->tg_event)	 ? trigger->tg_trigtuple
			: TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple
														 : NULL;
	queue_id = setting(after ? after : before, desc, "queue_id");
	rate_limit = setting(after, desc, "rate_limit");
	rate_interval = setting(after, desc, "rate_interval");
	old_rate_limit = setting(before, desc, "rate_limit");
	counts = setting(after, desc, "max_concurrency") > 0;
	counted = setting(before, desc, "max_concurrency") > 0;
	if (rate_limit == old_rate_limit && counts == counted &&
		(rate_limit == 0 || rate_interval == setting(before, desc, "rate_interval")))
		PG_RETURN_POINTER(NULL);
	slot = eq_wake_slot(queue_id);
	if (slot == NULL)
		PG_RETURN_POINTER(NULL); /* a claim will say so */

	changes = eq_changes_limits(slot);
	eq_prepare_limit_changes(1);
	limits = eq_lock_limits(slot);
	change = eq_log_limit_change(EQ_LIMIT_SETTINGS, slot);
	change->rate_limit = rate_limit;
	change->rate_interval = rate_interval;
	change->leases_changed = counts != counted;
	change->counts = counts;
	if (before == NULL)
	{
		/* No one knows it: what the slot has is of a queue of before. */
		limits->rate_limit = 0;
		limits->load_state = EQ_LEASES_NOT_LOADED;
		limits->epoch++;
	}
	/* If it is lifted and set in one transaction, the old one is in force till then. */
	if (rate_limit > 0 && old_rate_limit == 0 &&
		(!changes || limits->rate_limit == 0))
	{
		eq_begin_bucket(limits, rate_limit, rate_interval, true);
		change->began = true;
	}
	eq_unlock_limits(slot);
	PG_RETURN_POINTER(NULL);
}

/* Trigger on table job: after TRUNCATE, has the commit remove all leases from the limits. */
Datum
eq_leases_truncated(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BY_TRUNCATE(((TriggerData *) fcinfo->context)->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("leases_truncated: not called by its trigger")));
	eq_prepare_limit_changes(1);
	(void) eq_log_limit_change(EQ_LIMIT_TRUNCATED, NULL);
	PG_RETURN_POINTER(NULL);
}

/* Keeps the jobs that this session may see, and returns how many they are. */
static int
visible_jobs(Datum *ids, int n)
{
	const char *tenant = eq_confined_tenant();
	Relation jobs;
	int kept = 0;

	if (tenant == NULL)
		return n;
	jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	for (int i = 0; i < n; i++)
	{
		EqScan scan;
		ScanKeyData key;
		bool isnull;

		eq_scan_begin(&scan, jobs, eq_relation_oid(EQ_JOB_PKEY), GetActiveSnapshot(),
					  1);
		eq_scan_key(&scan, &key, 1, BTEqualStrategyNumber, F_INT8EQ, ids[i]);
		eq_scan_start(&scan, &key, 1);
		if (eq_scan_next(&scan, ForwardScanDirection) &&
			strcmp(TextDatumGetCString(slot_getattr(scan.slot, JOB_TENANT, &isnull)),
				   tenant) == 0)
			ids[kept++] = ids[i];
		eq_scan_end(&scan);
	}
	table_close(jobs, AccessShareLock);
	return kept;
}

/* For explain_job: the tokens, the jobs that are leased, and until when the queue is held. */
Datum
eq_queue_limits(PG_FUNCTION_ARGS)
{
	const EqQueue *queue = eq_get_queue_by_id(PG_GETARG_INT32(0));
	EqWakeSlot *slot = queue && eq_queue_is_limited(queue)
						   ? eq_wake_slot(queue->queue_id)
						   : NULL;
	TimestampTz held_until = queue ? eq_queue_held_until(queue) : 0;
	Datum jobs[SHOWN_LEASES];
	Datum values[4] = {0};
	bool nulls[4] = {true, true, true, held_until == 0};
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[3] = TimestampTzGetDatum(held_until);
	if (slot && queue->rate_limit > 0)
	{
		bool changes = eq_changes_limits(slot);
		double tokens;

		eq_lock_limits(slot);
		eq_update_bucket(eq_limits_of(slot), queue, changes, GetCurrentTimestamp());
		tokens = eq_limits_of(slot)->tokens;
		eq_unlock_limits(slot);
		values[0] = Float8GetDatum(tokens);
		nulls[0] = false;
	}
	/* A standby does not follow leases: loaded there, they would be wrong after a promotion. */
	if (slot && queue->max_concurrency > 0 && !RecoveryInProgress() &&
		eq_load_leases(slot, queue))
	{
		TimestampTz now = GetCurrentTimestamp();
		int64 active = 0;
		int n = 0;
		dlist_iter i;

		eq_lock_limits(slot);
		dlist_foreach(i, &eq_limits_of(slot)->leases)
		{
			EqLease *lease = dlist_container(EqLease, node, i.cur);

			if (lease->owner == 0 && lease->until <= now)
				continue;
			if (n < SHOWN_LEASES)
				jobs[n++] = Int64GetDatum(lease->key.job_id);
			active++;
		}
		eq_unlock_limits(slot);
		n = visible_jobs(jobs, n);
		values[1] = Int64GetDatum(active);
		values[2] = PointerGetDatum(construct_array(
			jobs, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		nulls[1] = nulls[2] = false;
	}
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * Test hook, which no SQL of the extension declares: makes the bucket's last refill
 * earlier, so that tests of rates need not wait.
 */
Datum
eq_age_bucket(PG_FUNCTION_ARGS)
{
	EqWakeSlot *slot = eq_find_wake_slot(PG_GETARG_INT32(0));

	if (slot)
	{
		eq_lock_limits(slot)->refilled_at -= eq_interval_us(PG_GETARG_INTERVAL_P(1));
		eq_unlock_limits(slot);
	}
	PG_RETURN_VOID();
}
