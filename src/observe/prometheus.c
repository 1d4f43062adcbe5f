/*
 * prometheus.c: writes counters and histograms in Prometheus' text format.
 *
 * Reads shared memory for queues, except for their names and settings, and the first job
 * of each queue that has jobs, which is one index look-up.  Counters begin with the server,
 * as Prometheus expects; the views of metrics.sql add earlier ones.  figures.sql reads
 * small tables for rules, schedules, subscriptions and the event store.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "event_queue.h"
#include "observe/metrics.h"
#include "queue/queue.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"
#include "watch/watch.h"

PG_FUNCTION_INFO_V1(eq_prometheus);

/* A queue, as it stands when the text is made. */
typedef struct QueueFigures
{
	int32 queue_id;
	char *labels; /* database and queue, escaped */
	char *info;	  /* labels of its description */
	double sla;	  /* seconds; 0: none */
	double sla_target;
	bool paused;
	bool has_slot;
	int64 living;
	int64 dead;
	double oldest; /* seconds */
	int64 counters[EQ_COUNTERS];
} QueueFigures;

/* The outcomes and histograms of a job name of a queue. */
typedef struct NameFigures
{
	char *labels;
	uint64 buckets[EQ_HISTOGRAMS][EQ_BUCKETS];
	double sums[EQ_HISTOGRAMS];
	uint64 failed; /* attempts; those that completed are counted by EQ_RUN */
} NameFigures;

static void
append_label(StringInfo out, const char *name, const char *value)
{
	if (out->len > 0)
		appendStringInfoChar(out, ',');
	appendStringInfo(out, "%s=\"", name);
	for (; *value; value++)
	{
		if (*value == '\n')
			appendStringInfoString(out, "\\n");
		else
		{
			if (*value == '\\' || *value == '"')
				appendStringInfoChar(out, '\\');
			appendStringInfoChar(out, *value);
		}
	}
	appendStringInfoChar(out, '"');
}

static char *
make_labels(const char *queue, const char *job_name)
{
	StringInfoData out;

	initStringInfo(&out);
	append_label(&out, "database", get_database_name(MyDatabaseId));
	append_label(&out, "queue", queue);
	if (job_name)
		append_label(&out, "job_name", job_name);
	return out.data;
}

static char *
name_labels(const char *queue_labels, const char *job_name)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, queue_labels);
	append_label(&out, "job_name", job_name);
	return out.data;
}

static void
read_counters(QueueFigures *queue)
{
	EqWakeSlot *slot = eq_find_wake_slot(queue->queue_id);
	const EqQueue *settings;
	TimestampTz oldest = 0;

	if (slot == NULL)
		return;
	queue->has_slot = true;
	queue->living = Max((int64) pg_atomic_read_u64(&slot->living), 0);
	queue->dead = Max((int64) pg_atomic_read_u64(&slot->dead_letters), 0);
	for (int c = 0; c < EQ_COUNTERS; c++)
		queue->counters[c] = (int64) pg_atomic_read_u64(&slot->counters[c]);
	if (queue->living > 0 &&
		(settings = eq_get_queue_by_id(queue->queue_id)) != NULL)
		oldest = eq_oldest_ready(settings);
	if (oldest != 0)
		queue->oldest = Max(GetCurrentTimestamp() - oldest, 0) / 1000000.0;
}

/* All queues, by their numbers. */
static QueueFigures *
read_queues(int *n)
{
	MemoryContext context = CurrentMemoryContext;
	QueueFigures *queues;
	EqSpi spi;

	PushActiveSnapshot(eq_latest_snapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT queue_id, name, paused, coalesce(owner, ''), coalesce(docs_url, ''),"
			" coalesce(extract(epoch FROM sla), 0)::float8, sla_target"
			" FROM event_queue.queue ORDER BY 1",
			true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table queue");
	*n = (int) SPI_processed;
	queues = MemoryContextAllocExtended(context, Max(*n, 1) * sizeof(QueueFigures),
										MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < *n; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		QueueFigures *queue = &queues[i];
		char *name = SPI_getvalue(row, desc, 2);
		MemoryContext old = MemoryContextSwitchTo(context);
		StringInfoData info;
		bool isnull;

		queue->queue_id = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		queue->paused = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
		queue->labels = make_labels(name, NULL);
		initStringInfo(&info);
		append_label(&info, "owner", SPI_getvalue(row, desc, 4));
		append_label(&info, "docs_url", SPI_getvalue(row, desc, 5));
		queue->info = info.data;
		queue->sla = DatumGetFloat8(SPI_getbinval(row, desc, 6, &isnull));
		queue->sla_target = DatumGetFloat8(SPI_getbinval(row, desc, 7, &isnull));
		MemoryContextSwitchTo(old);
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	for (int i = 0; i < *n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		read_counters(&queues[i]);
	}
	return queues;
}

static int
compare_queue(const void *key, const void *queue)
{
	int32 x = *(const int32 *) key;
	int32 y = ((const QueueFigures *) queue)->queue_id;

	return x < y ? -1 : x > y;
}

/* Adds what was counted in a series; false: it is another one's by now. */
static bool
add_series(EqSeries *series, uint32 generation, NameFigures *name)
{
	bool same;

	LWLockAcquire(eq_series_pool->lock, LW_SHARED);
	same = pg_atomic_read_u32(&series->generation) == generation;
	for (int h = 0; h < EQ_HISTOGRAMS && same; h++)
	{
		for (int b = 0; b < EQ_BUCKETS; b++)
			name->buckets[h][b] += series->buckets[h][b];
		name->sums[h] += series->sums[h];
		for (int i = 0; i < EQ_CELLS; i++)
		{
			uint32 n = pg_atomic_read_u32(&series->cells[h][i]);

			if (h == EQ_ATTEMPT_WAIT)
				n += pg_atomic_read_u32(&series->cells[EQ_WAIT][i]);
			if (n == 0)
				continue;
			name->buckets[h][eq_bucket_of(i)] += n;
			name->sums[h] += n * (eq_cell_middle(i) / 1000000.0);
		}
	}
	if (same)
		name->failed += pg_atomic_read_u64(&series->counters[EQ_COUNT_FAILED]);
	LWLockRelease(eq_series_pool->lock);
	return same;
}

/*
 * How many names there is room for: a text has less than 1 GB, and each name takes three
 * histograms.  The names of queues and jobs are most of a line, so they are measured.
 */
static int
count_names_with_room(const NameFigures *names, int n)
{
	Size room = (Size) eq_max_prometheus_size * 1024;

	for (int i = 0; i < n; i++)
	{
		Size line = strlen(names[i].labels) + 100;
		Size size = line * (EQ_HISTOGRAMS * (EQ_BUCKETS + 2) + 3);

		if (size > room)
			return i;
		room -= size;
	}
	return n;
}

/*
 * Reads the series of job names.  For a session that is confined to a tenant, adds up those of
 * each queue, so that it sees no names.
 */
static NameFigures *
read_names(const QueueFigures *queues, int n_queues, int *n)
{
	bool confined = eq_confined_tenant() != NULL;
	NameFigures *names = MemoryContextAllocExtended(
		CurrentMemoryContext, Max(eq_series_pool->max_jobs, 1) * sizeof(NameFigures),
		MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);

	*n = 0;
	for (int i = 0; i < eq_series_pool->max_jobs; i++)
	{
		EqSeries *series = &eq_series_pool->series[i];
		uint32 generation = pg_atomic_read_u32(&series->generation);
		NameFigures *name = &names[*n];
		int32 queue_id = series->queue_id;
		char own_name[EQ_MAX_NAME + 1];
		bool other;
		const QueueFigures *queue;
		char *labels;

		if (generation == 0)
			continue;
		pg_read_barrier();
		if (series->dboid != MyDatabaseId)
			continue;
		CHECK_FOR_INTERRUPTS();
		queue_id = series->queue_id;
		other = series->kind == EQ_SERIES_OTHER_JOBS;
		strlcpy(own_name, series->name, sizeof(own_name));
		queue = n_queues == 0 ? NULL
							  : bsearch(&queue_id, queues, n_queues,
										sizeof(QueueFigures), compare_queue);
		if (queue == NULL && queue_id != 0)
			continue; /* just dropped */
		labels = queue ? name_labels(queue->labels, confined ? "all"
													: other	 ? "other"
															 : own_name)
					   : make_labels("other", "other");
		/* A queue may be named "other", too. */
		for (int k = 0; k < *n && (confined || other); k++)
		{
			if (strcmp(names[k].labels, labels) == 0)
				name = &names[k];
		}
		if (!add_series(series, generation, name))
			continue;
		if (name != &names[*n])
			continue;
		name->labels = labels;
		(*n)++;
	}
	return names;
}

static void
begin_family(StringInfo out, const char *name, const char *type, const char *help)
{
	appendStringInfo(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void
append_counter(StringInfo out, const QueueFigures *queues, int n, EqCounter counter,
			   const char *name, const char *help)
{
	begin_family(out, name, "counter", help);
	for (int i = 0; i < n; i++)
	{
		if (queues[i].has_slot)
			appendStringInfo(out, "%s{%s} " INT64_FORMAT "\n", name,
							 queues[i].labels, queues[i].counters[counter]);
	}
}

static void
append_failures(StringInfo out, const QueueFigures *queues, int n)
{
	begin_family(out, "event_queue_jobs_failed_total", "counter",
				 "Attempts that failed; final: the job was not to be tried again.");
	for (int i = 0; i < n; i++)
	{
		const int64 *counters = queues[i].counters;

		if (!queues[i].has_slot)
			continue;
		appendStringInfo(
			out,
			"event_queue_jobs_failed_total{%s,final=\"false\"} " INT64_FORMAT
			"\nevent_queue_jobs_failed_total{%s,final=\"true\"} " INT64_FORMAT "\n",
			queues[i].labels, counters[EQ_COUNT_RETRIED], queues[i].labels,
			Max(counters[EQ_COUNT_FAILED] - counters[EQ_COUNT_RETRIED], 0));
	}
}

static void
append_attempts(StringInfo out, const NameFigures *names, int n)
{
	static const char *const family = "event_queue_job_attempts_total";

	begin_family(out, family, "counter",
				 "Attempts by job name that completed the job, or failed.");
	for (int i = 0; i < n; i++)
	{
		uint64 completed = 0;

		for (int b = 0; b < EQ_BUCKETS; b++)
			completed += names[i].buckets[EQ_RUN][b];
		appendStringInfo(out,
						 "%s{%s,outcome=\"completed\"} " UINT64_FORMAT
						 "\n%s{%s,outcome=\"failed\"} " UINT64_FORMAT "\n",
						 family, names[i].labels, completed, family, names[i].labels,
						 names[i].failed);
	}
}

static void
append_gauges(StringInfo out, const QueueFigures *queues, int n)
{
	begin_family(out, "event_queue_jobs", "gauge",
				 "Jobs that wait (due or not), are leased, or are dead letters.");
	for (int i = 0; i < n; i++)
	{
		const QueueFigures *queue = &queues[i];
		int64 leased = Max(queue->counters[EQ_COUNT_LEASED], 0);

		if (queue->has_slot)
			appendStringInfo(out,
							 "event_queue_jobs{%s,state=\"waiting\"} " INT64_FORMAT
							 "\nevent_queue_jobs{%s,state=\"leased\"} " INT64_FORMAT
							 "\nevent_queue_jobs{%s,state=\"dead\"} " INT64_FORMAT
							 "\n",
							 queue->labels, Max(queue->living - leased, 0),
							 queue->labels, leased, queue->labels, queue->dead);
	}
	begin_family(
		out, "event_queue_oldest_ready_seconds", "gauge",
		"For how long the first job that can be claimed has been due; 0: there is none.");
	for (int i = 0; i < n; i++)
		appendStringInfo(out, "event_queue_oldest_ready_seconds{%s} %.6f\n",
						 queues[i].labels, queues[i].oldest);
	begin_family(out, "event_queue_paused", "gauge", "Whether the queue is paused.");
	for (int i = 0; i < n; i++)
		appendStringInfo(out, "event_queue_paused{%s} %d\n", queues[i].labels,
						 queues[i].paused);
	begin_family(out, "event_queue_sla_seconds", "gauge",
				 "How long after it is due a job should be finished.");
	for (int i = 0; i < n; i++)
	{
		if (queues[i].sla > 0)
			appendStringInfo(out, "event_queue_sla_seconds{%s} %.6g\n",
							 queues[i].labels, queues[i].sla);
	}
	begin_family(out, "event_queue_sla_target_ratio", "gauge",
				 "The share of jobs that should be finished within the SLA.");
	for (int i = 0; i < n; i++)
	{
		if (queues[i].sla > 0)
			appendStringInfo(out, "event_queue_sla_target_ratio{%s} %.9g\n",
							 queues[i].labels, queues[i].sla_target);
	}
	begin_family(out, "event_queue_info", "gauge",
				 "Who looks after the queue, and where it says what to do.");
	for (int i = 0; i < n; i++)
		appendStringInfo(out, "event_queue_info{%s,%s} 1\n", queues[i].labels,
						 queues[i].info);
}

static void
append_histogram(StringInfo out, const NameFigures *names, int n,
				 EqHistogram histogram, const char *family, const char *help)
{
	begin_family(out, family, "histogram", help);
	for (int i = 0; i < n; i++)
	{
		uint64 count = 0;

		for (int b = 0; b < EQ_BUCKETS; b++)
		{
			count += names[i].buckets[histogram][b];
			if (b == EQ_BUCKETS - 1)
				appendStringInfo(out,
								 "%s_bucket{%s,le=\"+Inf\"} " UINT64_FORMAT "\n",
								 family, names[i].labels, count);
			else
				appendStringInfo(out, "%s_bucket{%s,le=\"%g\"} " UINT64_FORMAT "\n",
								 family, names[i].labels, eq_bucket_ends[b], count);
		}
		appendStringInfo(out, "%s_sum{%s} %.6f\n%s_count{%s} " UINT64_FORMAT "\n",
						 family, names[i].labels, names[i].sums[histogram], family,
						 names[i].labels, count);
	}
}

static void
append_workers(StringInfo out, const char *database)
{
	static const char *const kinds[] = {"scheduler", "rules", "executor", "keeper"};
	int n[lengthof(kinds)] = {0};

	LWLockAcquire(eq_workers_lock, LW_SHARED);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		const EqWorker *worker = &eq_worker_list[i];

		if (worker->kind == EQ_WORKER_NONE || worker->dboid != MyDatabaseId)
			continue;
		n[worker->kind == EQ_WORKER_SCHEDULER ? 0
		  : worker->kind == EQ_WORKER_RULES	  ? 1
		  : worker->kind == EQ_WORKER_KEEPER  ? 3
											  : 2]++;
	}
	LWLockRelease(eq_workers_lock);
	begin_family(out, "event_queue_workers", "gauge",
				 "Background workers of this database.");
	for (int i = 0; i < lengthof(kinds); i++)
		appendStringInfo(out, "event_queue_workers{%s,kind=\"%s\"} %d\n", database,
						 kinds[i], n[i]);
}

/* What figures.sql tells, and how it is described. */
static const struct
{
	const char *name;
	const char *type;
	const char *help;
} figures[] = {
	{"event_queue_rule_evaluations_total", "counter",
	 "Events that the rule's pattern and tenant let through."},
	{"event_queue_rule_matches_total", "counter", "How often the rule acted."},
	{"event_queue_rule_errors_total", "counter", "How often the rule failed."},
	{"event_queue_rule_suppressed_total", "counter",
	 "Firings that did not come about: a loop, or event_queue.rule_depth."},
	{"event_queue_rule_lag_events", "gauge",
	 "Events that the rules have not met, counted to 10000."},
	{"event_queue_rule_lag_seconds", "gauge",
	 "For how long the first of them has been there."},
	{"event_queue_schedule_last_run_timestamp_seconds", "gauge",
	 "When the schedule last made a job."},
	{"event_queue_schedule_next_run_timestamp_seconds", "gauge",
	 "When the schedule is to make its next job; none while it is paused."},
	{"event_queue_schedule_runs_total", "counter", "Jobs that the schedule made."},
	{"event_queue_schedule_missed_total", "counter",
	 "Times of the schedule that passed without a job of their own."},
	{"event_queue_subscription_lag_events", "gauge",
	 "Events that the subscription has not fetched, of the first 1000 after its checkpoint."},
	{"event_queue_subscription_lag_seconds", "gauge",
	 "For how long the first of them has been there."},
	{"event_queue_subscription_parked", "gauge",
	 "Aggregates that the consumer has set aside."},
	{"event_queue_watermark_lag_positions", "gauge",
	 "Positions taken by appends whose events readers do not see yet."},
	{"event_queue_watermark_blocked_seconds", "gauge",
	 "For how long the oldest open transaction that has appended has been open; 0: none."},
	{"event_queue_event_positions_total", "counter",
	 "Positions taken by appends, also of those that were rolled back."},
	{"event_queue_figures_unavailable", "gauge",
	 "1: a table is locked or can not be read, so that these figures are missing."},
};

static void
append_figures(StringInfo out, const char *database)
{
	StringInfoData lines[lengthof(figures)];
	EqSpi spi;

	for (int i = 0; i < lengthof(figures); i++)
		initStringInfo(&lines[i]);
	PushActiveSnapshot(eq_latest_snapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT metric, labels, value FROM event_queue_internal.figures()",
			false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read figures");
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HeapTuple tuple = SPI_tuptable->vals[row];
		TupleDesc desc = SPI_tuptable->tupdesc;
		char *metric = SPI_getvalue(tuple, desc, 1);
		StringInfoData labels;
		Datum *label;
		int n_labels;
		bool isnull;
		int i = 0;

		CHECK_FOR_INTERRUPTS();
		while (i < lengthof(figures) && strcmp(figures[i].name, metric) != 0)
			i++;
		if (i == lengthof(figures))
			elog(ERROR, "metric \"%s\" has no description", metric);
		initStringInfo(&labels);
		deconstruct_array(DatumGetArrayTypeP(SPI_getbinval(tuple, desc, 2, &isnull)),
						  TEXTOID, -1, false, TYPALIGN_INT, &label, NULL, &n_labels);
		for (int k = 0; k + 1 < n_labels; k += 2)
		{
			append_label(&labels, TextDatumGetCString(label[k]),
						 TextDatumGetCString(label[k + 1]));
		}
		appendStringInfo(&lines[i], "%s{%s%s%s} %.17g\n", metric, database,
						 n_labels > 0 ? "," : "", labels.data,
						 DatumGetFloat8(SPI_getbinval(tuple, desc, 3, &isnull)));
	}
	for (int i = 0; i < lengthof(figures); i++)
	{
		begin_family(out, figures[i].name, figures[i].type, figures[i].help);
		appendStringInfoString(out, lines[i].data);
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
}

static void
append_time(StringInfo out, const char *name, const char *help, const char *database,
			TimestampTz at)
{
	begin_family(out, name, "gauge", help);
	appendStringInfo(out, "%s{%s} %.3f\n", name, database,
					 at == 0 ? 0
							 : at / 1000000.0 +
								   (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
									   (double) SECS_PER_DAY);
}

static void
append_own(StringInfo out, const char *database, int n_left_out)
{
	EqDatabase *db = eq_find_database(MyDatabaseId);
	TimestampTz at = eq_last_sampled_at();
	int n_jobs;
	int n_tenants;

	append_workers(out, database);
	LWLockAcquire(eq_series_pool->lock, LW_SHARED);
	n_jobs = eq_series_pool->n_jobs;
	n_tenants = eq_series_pool->n_tenants;
	LWLockRelease(eq_series_pool->lock);
	append_time(
		out, "event_queue_last_tick_timestamp_seconds",
		"When the scheduler last began a cycle; it does once a minute at least.",
		database, db ? (TimestampTz) pg_atomic_read_u64(&db->scheduler_tick) : 0);
	append_time(out, "event_queue_last_sample_timestamp_seconds",
				"When the scheduler last took samples; it does once a minute.",
				database, at);
	begin_family(
		out, "event_queue_stats_places", "gauge",
		"Places taken for job names and tenants, of event_queue.max_job_stats and max_tenant_stats.");
	appendStringInfo(
		out,
		"event_queue_stats_places{%s,of=\"jobs\"} %d\nevent_queue_stats_places{%s,of=\"tenants\"} %d\n",
		database, n_jobs, database, n_tenants);
	begin_family(
		out, "event_queue_series_left_out", "gauge",
		"Job names of which nothing is told, by event_queue.max_prometheus_size.");
	appendStringInfo(out, "event_queue_series_left_out{%s} %d\n", database,
					 n_left_out);
	begin_family(out, "event_queue_build_info", "gauge",
				 "Versions of the extension and the server.");
	appendStringInfo(out, "event_queue_build_info{%s,version=\"%s\",pg=\"%s\"} 1\n",
					 database, EQ_VERSION, PG_VERSION);
}

Datum
eq_prometheus(PG_FUNCTION_ARGS)
{
	instr_time began;
	instr_time took;
	StringInfoData out;
	StringInfoData database;
	int n_queues;
	int n_names;
	int n_told;
	QueueFigures *queues;
	NameFigures *names;

	if (eq_may_be_bound())
		PG_RETURN_TEXT_P(
			cstring_to_text("")); /* it is all of all tenants together */
	INSTR_TIME_SET_CURRENT(began);
	queues = read_queues(&n_queues);
	names = read_names(queues, n_queues, &n_names);
	n_told = count_names_with_room(names, n_names);
	initStringInfo(&out);
	initStringInfo(&database);
	append_label(&database, "database", get_database_name(MyDatabaseId));

	append_gauges(&out, queues, n_queues);
	append_counter(&out, queues, n_queues, EQ_COUNT_ENQUEUED,
				   "event_queue_jobs_enqueued_total", "Jobs that were enqueued.");
	append_counter(&out, queues, n_queues, EQ_COUNT_CLAIMED,
				   "event_queue_jobs_claimed_total", "Jobs that were claimed.");
	append_counter(&out, queues, n_queues, EQ_COUNT_COMPLETED,
				   "event_queue_jobs_completed_total", "Jobs that were completed.");
	append_failures(&out, queues, n_queues);
	append_counter(&out, queues, n_queues, EQ_COUNT_RELEASED,
				   "event_queue_jobs_released_total",
				   "Jobs that their worker gave back.");
	append_counter(&out, queues, n_queues, EQ_COUNT_STALLED,
				   "event_queue_jobs_stalled_total",
				   "Jobs that were claimed again after their lease ran out.");
	append_counter(&out, queues, n_queues, EQ_COUNT_DEAD,
				   "event_queue_jobs_dead_total", "Jobs that became dead letters.");
	append_counter(&out, queues, n_queues, EQ_COUNT_CANCELLED,
				   "event_queue_jobs_cancelled_total", "Jobs that were cancelled.");
	append_counter(&out, queues, n_queues, EQ_COUNT_LATE,
				   "event_queue_jobs_late_total",
				   "Jobs that were completed later than the SLA allows.");
	append_attempts(&out, names, n_told);
	append_histogram(&out, names, n_told, EQ_WAIT, "event_queue_job_wait_seconds",
					 "From when a job is first due until it is first claimed.");
	append_histogram(&out, names, n_told, EQ_ATTEMPT_WAIT,
					 "event_queue_job_attempt_wait_seconds",
					 "From when a job is due until it is claimed, each attempt.");
	append_histogram(&out, names, n_told, EQ_RUN, "event_queue_job_run_seconds",
					 "From when a job is claimed until it is completed.");
	append_figures(&out, database.data);
	append_own(&out, database.data, n_names - n_told);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, began);
	begin_family(&out, "event_queue_scrape_duration_seconds", "gauge",
				 "How long it took to make this text.");
	appendStringInfo(&out, "event_queue_scrape_duration_seconds{%s} %.6f\n",
					 database.data, INSTR_TIME_GET_DOUBLE(took));
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}
