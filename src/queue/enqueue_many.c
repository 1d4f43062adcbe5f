/*
 * enqueue_many.c: adds many jobs in one call, all or none: a list, or a flow, which is a
 * tree in which each job depends on its children.
 *
 * All jobs are read and checked before the first is written.  Those without a unique key
 * and dependencies are written by multi-insert, as COPY does; the others go one by one
 * through eq_enqueue.  Ids are drawn beforehand in the order of the list, since jobs of a
 * group run in the order of ids.
 *
 * Two calls that use the same keys, or depend on the same jobs, in different orders do not
 * deadlock: they never wait while they hold a lock (bulk.c).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_enqueue_many);
PG_FUNCTION_INFO_V1(eq_enqueue_flow);

#define MAX_MANY  100000
#define MAX_LEVEL 100

/* A job to be written. */
typedef struct NewJob
{
	EqNewJob job;
	const EqQueue *queue;
	Datum *children; /* ids of a flow's jobs that come first */
	int n_children;
} NewJob;

/* The jobs of a call, and what they have in common. */
typedef struct Batch
{
	EqNewJob defaults;
	const char *tenant; /* that of jobs that name none; NULL: not resolved yet */
	Jsonb *metadata;	/* and their metadata, if it is known */
	bool metadata_known;
	const EqQueue *queue; /* the one that was read last */
	TimestampTz now;
	uint32 allowed; /* options of a job */
	NewJob *items;
	int n;
	int max;
	bool may_deadlock; /* there are jobs with unique keys or dependencies */
} Batch;

static void
tell_which_job(void *arg)
{
	errcontext("job %d of the call", ((Batch *) arg)->n + 1);
}

/* Reads queue, tenant_id and options, at these arguments: defaults for all jobs. */
static void
begin_batch(Batch *batch, FunctionCallInfo fcinfo, int queue, int tenant,
			int options)
{
	memset(batch, 0, sizeof(*batch));
	batch->now = GetCurrentTimestamp();
	if (!PG_ARGISNULL(options))
		eq_read_job_options(&batch->defaults, &PG_GETARG_JSONB_P(options)->root,
							EQ_IN_JOB & ~EQ_OPTION_BIT(EQ_OPTION_QUEUE) &
								~EQ_OPTION_BIT(EQ_OPTION_TENANT_ID),
							false);
	if (!PG_ARGISNULL(queue))
		eq_set_job_option(
			&batch->defaults, EQ_OPTION_QUEUE,
			CStringGetDatum(text_to_cstring(PG_GETARG_TEXT_PP(queue))));
	if (!PG_ARGISNULL(tenant))
		eq_set_job_option(
			&batch->defaults, EQ_OPTION_TENANT_ID,
			CStringGetDatum(text_to_cstring(PG_GETARG_TEXT_PP(tenant))));
}

/* A queue is looked up once for jobs of the same that follow each other. */
static const EqQueue *
queue_of(Batch *batch, const char *name)
{
	if (batch->queue == NULL || name == NULL ||
		strcmp(batch->queue->name, name) != 0)
	{
		batch->queue = eq_get_queue(name);
		eq_require_accepting(batch->queue);
	}
	return batch->queue;
}

/* Adds tenant and lineage; jobs that give none share them. */
static void
add_session(Batch *batch, EqNewJob *job)
{
	if (job->tenant != batch->defaults.tenant)
		job->tenant = eq_resolve_tenant(job->tenant);
	else
	{
		if (batch->tenant == NULL)
			batch->tenant = eq_resolve_tenant(batch->defaults.tenant);
		job->tenant = batch->tenant;
	}
	if (job->metadata != batch->defaults.metadata)
		job->metadata = eq_new_job_metadata(job->metadata);
	else
	{
		if (!batch->metadata_known)
			batch->metadata = eq_new_job_metadata(batch->defaults.metadata);
		batch->metadata_known = true;
		job->metadata = batch->metadata;
	}
}

/* Adds a job that is a JSON object; its index. */
static int
add_job(Batch *batch, JsonbContainer *json)
{
	NewJob *item;

	CHECK_FOR_INTERRUPTS();
	if (batch->n == MAX_MANY)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("at most %d jobs can be enqueued in one call", MAX_MANY)));
	if (batch->n == batch->max)
	{
		batch->max = Max(batch->max * 2, 64);
		batch->items = batch->items
						   ? repalloc_huge(batch->items, batch->max * sizeof(NewJob))
						   : palloc(batch->max * sizeof(NewJob));
	}
	item = &batch->items[batch->n];
	item->job = batch->defaults;
	item->children = NULL;
	item->n_children = 0;
	eq_read_job_options(&item->job, json, batch->allowed, false);
	item->queue = queue_of(batch, item->job.queue_name);
	eq_check_new_job(&item->job, item->queue, batch->now);
	add_session(batch, &item->job);
	if (item->job.unique_key || item->job.depends_on)
		batch->may_deadlock = true;
	return batch->n++;
}

/* The objects of an array, one after the other; EQ009 if there is something else. */
static bool
next_object(JsonbIterator **it, JsonbContainer **object, const char *what)
{
	JsonbIteratorToken token;
	JsonbValue value;

	while ((token = JsonbIteratorNext(it, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data))
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
							errmsg("%s must be a JSON array of objects", what)));
		*object = value.val.binary.data;
		return true;
	}
	return false;
}

static void
tell_which_child(void *arg)
{
	errcontext("child %d of a job of the flow", *(int *) arg + 1);
}

/* Adds a flow's job after its children, which it is to wait for; its index. */
static int
add_tree(Batch *batch, JsonbContainer *json, int level)
{
	JsonbValue buffer;
	JsonbValue *children = getKeyJsonValueFromContainer(json, "children", 8,
														&buffer);
	Datum *before = NULL;
	int n = 0;
	int added;
	ErrorContextCallback callback = {
		.previous = error_context_stack, .callback = tell_which_child, .arg = &n};

	if (level > MAX_LEVEL)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("a flow must not be deeper than %d levels", MAX_LEVEL)));
	if (children && children->type == jbvBinary &&
		JsonContainerIsArray(children->val.binary.data))
	{
		JsonbContainer *array = children->val.binary.data;
		JsonbIterator *it = JsonbIteratorInit(array);
		JsonbContainer *child;

		before = palloc(Max(JsonContainerSize(array), 1) * sizeof(Datum));
		error_context_stack = &callback;
		while (next_object(&it, &child, "children of a flow"))
		{
			before[n] = Int32GetDatum(add_tree(batch, child, level + 1));
			n++;
		}
		error_context_stack = callback.previous;
	}
	added = add_job(batch, json);
	batch->items[added].children = before;
	batch->items[added].n_children = n;
	return added;
}

static inline bool
looks_at_others(const NewJob *item)
{
	return item->job.unique_key || item->job.depends_on || item->n_children > 0;
}

typedef struct GroupKey
{
	int32 queue_id;
	const char *tenant;
	const char *key;
} GroupKey;

static int
compare_groups(const void *a, const void *b)
{
	const GroupKey *x = a;
	const GroupKey *y = b;
	int result = x->queue_id < y->queue_id ? -1 : x->queue_id > y->queue_id;

	if (result == 0)
		result = strcmp(x->tenant, y->tenant);
	return result ? result : strcmp(x->key, y->key);
}

/* Grouped jobs were written: one review for each key. */
static void
review_groups(GroupKey *groups, int n)
{
	qsort(groups, n, sizeof(GroupKey), compare_groups);
	for (int i = 0; i < n; i++)
	{
		eq_count(groups[i].queue_id, EQ_COUNT_ENQUEUED, 1);
		if (i == 0 || compare_groups(&groups[i], &groups[i - 1]) != 0)
			eq_review_group(groups[i].queue_id,
							CStringGetTextDatum(groups[i].tenant),
							CStringGetTextDatum(groups[i].key));
	}
}

/* Jobs of one lane and priority that were written one after the other. */
typedef struct Run
{
	const EqQueue *queue;
	EqNewJob first; /* with the lowest time of all */
	int32 lane;
	int64 n;
} Run;

static void
end_run(Run *run)
{
	if (run->n > 0)
		eq_after_enqueue(run->queue, &run->first, 0, run->lane, JOB_NOT_BLOCKED,
						 run->n);
	run->n = 0;
}

static void
add_to_run(Run *run, const NewJob *item, int32 lane)
{
	if (run->n > 0 && run->queue->queue_id == item->queue->queue_id &&
		run->lane == lane && run->first.priority == item->job.priority)
		run->first.run_at = Min(run->first.run_at, item->job.run_at);
	else
	{
		end_run(run);
		run->queue = item->queue;
		run->first = item->job;
		run->lane = lane;
	}
	run->n++;
}

/* Writes the jobs that need no look at others. */
static void
write_bulk(const Batch *batch)
{
	EqTable jobs;
	EqBulk bulk;
	Run run = {0};
	GroupKey *groups = palloc(batch->n * sizeof(GroupKey));
	int n_groups = 0;

	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	eq_bulk_begin(&bulk, &jobs);
	for (int i = 0; i < batch->n; i++)
	{
		const NewJob *item = &batch->items[i];
		const EqNewJob *job = &item->job;
		int32 lane;
		int blocked;
		Datum values[JOB_COLUMNS];
		bool nulls[JOB_COLUMNS];
		MemoryContext old;

		if (looks_at_others(item))
			continue;
		lane = eq_job_lane(item->queue, job->tenant, job->run_at);
		if (job->group_key)
		{
			GroupKey *group = &groups[n_groups++];

			group->queue_id = item->queue->queue_id;
			group->tenant = job->tenant;
			group->key = job->group_key;
			blocked = JOB_BLOCKED_BY_GROUP;
		}
		else
		{
			add_to_run(&run, item, lane);
			blocked = JOB_NOT_BLOCKED;
		}
		old = MemoryContextSwitchTo(bulk.context);
		eq_fill_job_row(&jobs, item->queue, job, job->job_id, lane, batch->now,
						blocked, values, nulls);
		MemoryContextSwitchTo(old);
		eq_bulk_insert(&bulk, values, nulls);
		eq_count_new_job(item->queue, job);
	}
	eq_bulk_end(&bulk);
	eq_table_close(&jobs);
	CommandCounterIncrement();
	end_run(&run);
	review_groups(groups, n_groups);
}

/* Returns the dependencies of a flow's job: its depends_on and its children. */
static ArrayType *
dependencies(const NewJob *item, const int64 *ids)
{
	Datum *all;
	Datum *own = NULL;
	bool *nulls;
	int n = 0;

	if (item->n_children == 0)
		return item->job.depends_on;
	if (item->job.depends_on)
		deconstruct_array(item->job.depends_on, INT8OID, sizeof(int64),
						  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &own, &nulls, &n);
	all = palloc((n + item->n_children) * sizeof(Datum));
	if (n > 0)
		memcpy(all, own, n * sizeof(Datum));
	for (int i = 0; i < item->n_children; i++)
		all[n++] = Int64GetDatum(ids[DatumGetInt32(item->children[i])]);
	return construct_array(all, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						   TYPALIGN_DOUBLE);
}

/* Writes all jobs; ids[i]: of the job, or of the one that has its unique key. */
static void
write_jobs(const Batch *batch, int64 *ids)
{
	write_bulk(batch);
	for (int i = 0; i < batch->n; i++)
	{
		const NewJob *item = &batch->items[i];
		EqNewJob job = item->job;

		ids[i] = job.job_id;
		if (!looks_at_others(item))
			continue;
		CHECK_FOR_INTERRUPTS();
		job.depends_on = dependencies(item, ids);
		ids[i] = eq_enqueue(item->queue, &job);
	}
}

typedef struct Writing
{
	const Batch *batch;
	int64 *ids;
} Writing;

static void
attempt_write(void *argument)
{
	Writing *writing = argument;

	write_jobs(writing->batch, writing->ids);
}

/* Draws ids and writes all jobs of a call. */
static int64 *
write_batch(Batch *batch)
{
	int64 *ids = palloc(Max(batch->n, 1) * sizeof(int64));
	Writing writing = {batch, ids};
	Oid sequence = eq_relation_oid(EQ_JOB_ID_SEQ);

	for (int i = 0; i < batch->n; i++)
		batch->items[i].job.job_id = nextval_internal(sequence, false);
	if (batch->may_deadlock)
		eq_enqueue_by_attempts(attempt_write, &writing);
	else
		attempt_write(&writing);
	return ids;
}

Datum
eq_enqueue_many(PG_FUNCTION_ARGS)
{
	Batch batch;
	ErrorContextCallback callback = {
		.previous = error_context_stack, .callback = tell_which_job, .arg = &batch};
	JsonbContainer *array;
	JsonbContainer *json;
	JsonbIterator *it;
	int64 *ids;
	Datum *result;

	begin_batch(&batch, fcinfo, 0, 2, 3);
	batch.allowed = EQ_IN_JOB;
	array = PG_ARGISNULL(1) ? NULL : &PG_GETARG_JSONB_P(1)->root;
	if (array == NULL || !JsonContainerIsArray(array) ||
		JsonContainerIsScalar(array))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("jobs must be a JSON array of objects")));
	error_context_stack = &callback;
	it = JsonbIteratorInit(array);
	while (next_object(&it, &json, "jobs"))
		(void) add_job(&batch, json);
	error_context_stack = callback.previous;

	if (batch.n == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));
	ids = write_batch(&batch);
	result = palloc(batch.n * sizeof(Datum));
	for (int i = 0; i < batch.n; i++)
		result[i] = Int64GetDatum(ids[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(result, batch.n, INT8OID, sizeof(int64),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

Datum
eq_enqueue_flow(PG_FUNCTION_ARGS)
{
	Batch batch;
	JsonbContainer *flow;
	int64 *ids;

	begin_batch(&batch, fcinfo, 0, 2, 3);
	batch.allowed = EQ_IN_FLOW;
	flow = PG_ARGISNULL(1) ? NULL : &PG_GETARG_JSONB_P(1)->root;
	if (flow == NULL || !JsonContainerIsObject(flow))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("a flow must be a JSON object")));
	(void) add_tree(&batch, flow, 1);
	ids = write_batch(&batch);
	PG_RETURN_INT64(ids[batch.n - 1]);
}
