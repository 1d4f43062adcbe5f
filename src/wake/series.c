/*
 * series.c: counters and histograms of job names and tenants.
 *
 * A series belongs to a job name of a queue, or to a tenant.  Their number is fixed
 * (event_queue.max_job_stats, event_queue.max_tenant_stats); a name or tenant without one is
 * counted in the series of all others, of its queue or of the database.  Counts of a queue
 * as a whole are always exact: they are in the queue's slot (slot.c), and its histograms are
 * the sums of those of its names.
 *
 * What a transaction does is logged, and added after its commit, so that rolled back jobs
 * do not count.  The series is looked up when it is logged, since afterwards nothing may
 * throw or allocate.  If it was freed meanwhile, its generation differs, and the entry is
 * dropped; a freed series is not reused for a while, so that a process that has just
 * compared generations does not add to another's.
 *
 * Series of a database are found by a hash of (database, kind, queue, name), whose chains
 * change with the lock held exclusively, and by each session in a small cache.  They are
 * freed with their queue, database or extension, and, if room is short, by the scheduler if
 * nothing happens in them.
 */
#include "postgres.h"

#include <math.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "wake/series.h"
#include "wake/wake.h"

#define REST_US		  (10 * USECS_PER_SEC) /* a series rests when it is given back */
#define CACHED		  256
#define LOOK_AGAIN_US (1 * USECS_PER_SEC) /* for a place when there was none */
#define NOT_USED	  0

EqSeriesPool *eq_series_pool = NULL;

int eq_max_job_stats = 1000;
int eq_max_tenant_stats = 100;
int eq_keep_metrics = 30;
int eq_max_prometheus_size = 262144;

const double eq_bucket_ends[EQ_BUCKETS] = {
	0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,  1,
	2.5,   5,	  10,	30,	   60,	 300, 1800, 3600, HUGE_VAL};

/* Jobs of one name that one call has counted. */
typedef struct Counted
{
	SubTransactionId subid;
	uint32 job_generation;
	uint32 tenant_generation;
	int32 n;
	EqSeries *job;	  /* NULL: no room */
	EqSeries *tenant; /* likewise */
	uint16 counter;
	int16 cell; /* of how long it waited, or ran; -1: of neither */
	bool first;
} Counted;

static int
n_series(void)
{
	return eq_max_job_stats + eq_max_tenant_stats;
}

static uint32
chains_wanted(void)
{
	uint32 n = 64;

	while (n < (uint32) n_series())
		n *= 2;
	return n;
}

static Size
series_size(void)
{
	Size size = MAXALIGN(sizeof(EqSeriesPool));

	size = add_size(size, MAXALIGN(mul_size(chains_wanted(), sizeof(uint32))));
	return add_size(size, mul_size(n_series(), sizeof(EqSeries)));
}

/* Leaves series untouched until they are used, but for their first words. */
static void
attach_series(void *memory, LWLockPadded *locks, bool is_new)
{
	char *next = (char *) memory + MAXALIGN(sizeof(EqSeriesPool));

	eq_series_pool = memory;
	if (!is_new)
		return;
	memset(eq_series_pool, 0, sizeof(EqSeriesPool));
	eq_series_pool->lock = &locks->lock;
	eq_series_pool->max_jobs = eq_max_job_stats;
	eq_series_pool->max_tenants = eq_max_tenant_stats;
	eq_series_pool->n_chains = chains_wanted();
	eq_series_pool->chains = (uint32 *) next;
	memset(next, 0, eq_series_pool->n_chains * sizeof(uint32));
	next += MAXALIGN(eq_series_pool->n_chains * sizeof(uint32));
	eq_series_pool->series = (EqSeries *) next;
	for (int i = 0; i < n_series(); i++)
	{
		pg_atomic_init_u32(&eq_series_pool->series[i].generation, 0);
		eq_series_pool->series[i].freed_at = 0;
	}
	pg_atomic_init_u32(&eq_series_pool->given_back, 0);
	pg_atomic_init_u64(&eq_series_pool->no_room, 0);
	pg_atomic_init_u64(&eq_series_pool->no_tenants, 0);
	pg_atomic_init_u64(&eq_series_pool->last_no_room, 0);
}

static void
forget_series_of_database(Oid dboid)
{
	eq_forget_series(dboid, 0);
}

const EqSharedPart eq_series_part = {
	.name = "event_queue series",
	.n_locks = 1,
	.size = series_size,
	.attach = attach_series,
	.end_database = forget_series_of_database,
};

static uint64
hash_of(char kind, int32 queue_id, const char *name, int length)
{
	return hash_bytes_extended((const unsigned char *) name, length,
							   (uint64) (unsigned char) kind << 32 |
								   (uint32) queue_id);
}

static uint32 *
chain_of(Oid dboid, uint64 hash)
{
	return &eq_series_pool->chains[(hash ^ murmurhash32(dboid)) &
								   (eq_series_pool->n_chains - 1)];
}

static bool
is_of(const EqSeries *series, Oid dboid, char kind, int32 queue_id, const char *name,
	  int length)
{
	return series->kind == kind && series->queue_id == queue_id &&
		   series->dboid == dboid && series->name_length == length &&
		   memcmp(series->name, name, length) == 0;
}

/* Looks up a series, with the lock held. */
static EqSeries *
look_up(char kind, int32 queue_id, const char *name, int length, uint64 hash)
{
	uint32 number = *chain_of(MyDatabaseId, hash);

	while (number != 0)
	{
		EqSeries *series = &eq_series_pool->series[number - 1];

		if (is_of(series, MyDatabaseId, kind, queue_id, name, length))
			return series;
		number = series->next;
	}
	return NULL;
}

static inline bool
is_tenants(const EqSeries *series)
{
	return series - eq_series_pool->series >= eq_series_pool->max_jobs;
}

/* Frees a series, with the lock held exclusively. */
static void
give_back(EqSeries *series, TimestampTz now)
{
	uint32 number = series - eq_series_pool->series + 1;
	uint32 *link = chain_of(
		series->dboid,
		hash_of(series->kind, series->queue_id, series->name, series->name_length));

	while (*link != number)
		link = &eq_series_pool->series[*link - 1].next;
	*link = series->next;
	pg_atomic_write_u32(&series->generation, NOT_USED);
	series->freed_at = now;
	if (is_tenants(series))
		eq_series_pool->n_tenants--;
	else
		eq_series_pool->n_jobs--;
	pg_atomic_fetch_add_u32(&eq_series_pool->given_back, 1);
}

/* Takes a free series, with the lock held exclusively; NULL if there is none. */
static EqSeries *
take_free(bool tenants, TimestampTz now)
{
	int first = tenants ? eq_series_pool->max_jobs : 0;
	int n = tenants ? eq_series_pool->max_tenants : eq_series_pool->max_jobs;

	for (int i = first; i < first + n; i++)
	{
		EqSeries *series = &eq_series_pool->series[i];

		/* freed_at in the future: the clock was set back. */
		if (pg_atomic_read_u32(&series->generation) == NOT_USED &&
			(series->freed_at == 0 || series->freed_at < now - REST_US ||
			 series->freed_at > now))
			return series;
	}
	return NULL;
}

/* Counts the series of this database and of this queue, with the lock held. */
static void
count_taken(bool tenants, int32 queue_id, int *of_database, int *of_queue)
{
	int first = tenants ? eq_series_pool->max_jobs : 0;
	int n = tenants ? eq_series_pool->max_tenants : eq_series_pool->max_jobs;

	*of_database = *of_queue = 0;
	for (int i = first; i < first + n; i++)
	{
		EqSeries *series = &eq_series_pool->series[i];

		if (pg_atomic_read_u32(&series->generation) == NOT_USED ||
			series->dboid != MyDatabaseId)
			continue;
		(*of_database)++;
		if (series->queue_id == queue_id)
			(*of_queue)++;
	}
}

/*
 * Is there room for one more?  What is left becomes less for names of queues that have
 * some already, and then for all names: so that each queue finds room for its other
 * jobs, and each database for its other queues.
 */
static bool
has_room(char kind, int32 queue_id, bool *is_full)
{
	bool tenants = kind == EQ_SERIES_TENANT || kind == EQ_SERIES_OTHER_TENANTS;
	int max = tenants ? eq_series_pool->max_tenants : eq_series_pool->max_jobs;
	int free = max - (tenants ? eq_series_pool->n_tenants : eq_series_pool->n_jobs);
	int of_database;
	int of_queue;

	count_taken(tenants, queue_id, &of_database, &of_queue);
	if (kind == EQ_SERIES_JOB && of_queue >= EQ_MAX_JOB_NAMES)
		return false;
	if (kind == EQ_SERIES_JOB && of_queue > 0)
		*is_full = free <= max / 8;
	else if (kind == EQ_SERIES_JOB ||
			 (kind == EQ_SERIES_OTHER_JOBS && queue_id != 0))
		*is_full = free <= max / 16;
	else if (kind == EQ_SERIES_TENANT)
		*is_full = free <= max / 16;
	else
		return free > 0;
	if (!*is_full && max >= 100 &&
		!eq_is_fair_share(of_database, 1, free, 2 * EQ_SHARE_OF_DATABASE))
		*is_full = true;
	return !*is_full;
}

/* Takes a free series, with the lock held exclusively; NULL if there is none. */
static EqSeries *
take(char kind, int32 queue_id, const char *name, int length, uint64 hash)
{
	bool tenants = kind == EQ_SERIES_TENANT || kind == EQ_SERIES_OTHER_TENANTS;
	TimestampTz now = GetCurrentTimestamp();
	EqSeries *series = take_free(tenants, now);
	uint32 *chain = chain_of(MyDatabaseId, hash);

	if (series == NULL)
		return NULL;
	series->dboid = MyDatabaseId;
	series->queue_id = queue_id;
	series->kind = kind;
	series->name_length = length;
	memcpy(series->name, name, length);
	series->name[length] = '\0';
	series->taken_at = series->sampled_at = now;
	for (int c = 0; c < EQ_SERIES_COUNTERS; c++)
		pg_atomic_init_u64(&series->counters[c], 0);
	memset(series->sampled, 0, sizeof(series->sampled));
	memset(series->buckets, 0, sizeof(series->buckets));
	memset(series->sums, 0, sizeof(series->sums));
	series->idle = 0;
	series->activity = 0;
	for (int h = 0; h < EQ_HISTOGRAMS; h++)
	{
		for (int i = 0; i < EQ_CELLS; i++)
			pg_atomic_init_u32(&series->cells[h][i], 0);
	}
	series->next = *chain;
	*chain = series - eq_series_pool->series + 1;
	if (tenants)
		eq_series_pool->n_tenants++;
	else
		eq_series_pool->n_jobs++;
	if (++eq_series_pool->last_generation == NOT_USED)
		eq_series_pool->last_generation++;
	pg_write_barrier();
	pg_atomic_write_u32(&series->generation, eq_series_pool->last_generation);
	return series;
}

/* With the lock held exclusively: the series, taken if there is room. */
static EqSeries *
look_up_or_take(char kind, int32 queue_id, const char *name, int length,
				bool *is_full)
{
	uint64 hash = hash_of(kind, queue_id, name, length);
	EqSeries *series = look_up(kind, queue_id, name, length, hash);

	if (series == NULL && has_room(kind, queue_id, is_full))
	{
		series = take(kind, queue_id, name, length, hash);
		if (series == NULL)
			*is_full = true; /* what is free rests yet */
	}
	return series;
}

/* The series, or that of all others; NULL if there is none of these. */
static pg_attribute_unused() EqSeries *find_in_pool(char kind, int32 queue_id,
													const char *name, int length,
													uint64 hash, bool *is_other)
{
	bool tenants = kind == EQ_SERIES_TENANT;
	bool is_full = false;
	EqSeries *series;

	*is_other = false;
	LWLockAcquire(eq_series_pool->lock, LW_SHARED);
	series = look_up(kind, queue_id, name, length, hash);
	LWLockRelease(eq_series_pool->lock);
	if (series != NULL)
		return series;

	LWLockAcquire(eq_series_pool->lock, LW_EXCLUSIVE);
	/* A job or tenant named "other" is counted in the series of all others, which is shown so. */
	if (length != 5 || memcmp(name, "other", 5) != 0)
		series = look_up_or_take(kind, queue_id, name, length, &is_full);
	if (series == NULL)
	{
		bool ignored;

		*is_other = true;
		if (tenants)
			series = look_up_or_take(EQ_SERIES_OTHER_TENANTS, 0, "", 0, &ignored);
		else
			series = look_up_or_take(EQ_SERIES_OTHER_JOBS, queue_id, "", 0,
									 &ignored);
		if (series == NULL && !tenants)
			series = look_up_or_take(EQ_SERIES_OTHER_JOBS, 0, "", 0, &ignored);
	}
	LWLockRelease(eq_series_pool->lock);
	if (is_full)
	{
		pg_atomic_fetch_add_u64(
			tenants ? &eq_series_pool->no_tenants : &eq_series_pool->no_room, 1);
		pg_atomic_write_u64(&eq_series_pool->last_no_room, GetCurrentTimestamp());
	}
	return series;
}

#ifndef EQ_NO_METRICS
/* Cache of this session: series that it has found. */
typedef struct Cached
{
	uint64 hash;
	EqSeries *series; /* NULL: nothing is known, or there is none */
	uint32 generation;
	bool is_other;
	uint32 given_back;		   /* of the pool, when it was of all others */
	TimestampTz look_again_at; /* for a place of its own, or for any */
} Cached;

static Cached cache[CACHED];

static bool
still_holds(const Cached *cached, char kind, int32 queue_id, const char *name,
			int length)
{
	EqSeries *series = cached->series;

	if (series != NULL &&
		pg_atomic_read_u32(&series->generation) != cached->generation)
		return false;
	if (cached->is_other)
		return pg_atomic_read_u32(&eq_series_pool->given_back) ==
				   cached->given_back &&
			   GetCurrentTimestamp() < cached->look_again_at;
	return series != NULL &&
		   is_of(series, MyDatabaseId, kind, queue_id, name, length);
}

static EqSeries *
find_series(char kind, int32 queue_id, const char *name, int length,
			uint32 *generation)
{
	static EqSeries *last[2] = {NULL, NULL}; /* of a job, and of a tenant */
	static uint32 last_generation[2];
	int which = kind == EQ_SERIES_TENANT;
	uint64 hash;
	Cached *cached;
	EqSeries *series = last[which];

	/* In a row that plain SQL has written: no series can have this name. */
	if (length > EQ_MAX_NAME)
	{
		name = "other";
		length = strlen(name);
	}
	if (series != NULL &&
		pg_atomic_read_u32(&series->generation) == last_generation[which] &&
		is_of(series, MyDatabaseId, kind, queue_id, name, length))
	{
		*generation = last_generation[which];
		return series;
	}

	hash = hash_of(kind, queue_id, name, length);
	cached = &cache[hash & (CACHED - 1)];
	series = cached->series;
	if (cached->hash == hash && still_holds(cached, kind, queue_id, name, length))
	{
		if (series == NULL)
			return NULL;
		last[which] = series;
		last_generation[which] = *generation = cached->generation;
		return series;
	}

	/* Before the look, so that what is given back meanwhile makes for another look. */
	cached->series = NULL;
	cached->given_back = pg_atomic_read_u32(&eq_series_pool->given_back);
	series = find_in_pool(kind, queue_id, name, length, hash, &cached->is_other);
	cached->hash = hash;
	/* Series that were given back become free only after a while: look again then. */
	if (cached->is_other)
		cached->look_again_at = GetCurrentTimestamp() + LOOK_AGAIN_US;
	if (series == NULL)
		return NULL;
	*generation = pg_atomic_read_u32(&series->generation);
	cached->series = series;
	cached->generation = *generation;
	return series;
}

/*
 * After commit, adds n to a counter of the job's name and of its tenant.  us: how long
 * the job waited (EQ_COUNT_CLAIMED; first: it was never claimed before) or ran
 * (EQ_COUNT_COMPLETED).
 */
void
eq_count_job(const EqJobNames *names, EqCounter counter, int n, int64 us, bool first)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	bool timed = counter == EQ_COUNT_CLAIMED || counter == EQ_COUNT_COMPLETED;
	uint32 job_generation = 0;
	uint32 tenant_generation = 0;
	EqSeries *job = find_series(EQ_SERIES_JOB, names->queue_id, names->name,
								names->name_length, &job_generation);
	EqSeries *tenant = find_series(EQ_SERIES_TENANT, 0, names->tenant,
								   names->tenant_length, &tenant_generation);
	Counted *counted;

	if (job == NULL && tenant == NULL)
		return;
	if (!timed && eq_counted_jobs.n > 0)
	{
		counted = EQ_XACT_ENTRY(eq_counted_jobs, Counted, eq_counted_jobs.n - 1);
		if (counted->subid == subid && counted->counter == counter &&
			counted->job == job && counted->tenant == tenant &&
			counted->job_generation == job_generation &&
			counted->tenant_generation == tenant_generation &&
			counted->n <= PG_INT32_MAX - n)
		{
			counted->n += n;
			return;
		}
	}
	counted = eq_xact_add(&eq_counted_jobs);
	counted->job = job;
	counted->tenant = tenant;
	counted->job_generation = job_generation;
	counted->tenant_generation = tenant_generation;
	counted->n = n;
	counted->counter = counter;
	counted->cell = timed ? eq_cell_of(us) : -1;
	counted->first = first;
}
#endif

/* One atomic addition: that is what a job costs here, for its name and its tenant each. */
static inline void
add_to_series(EqSeries *series, uint32 generation, const Counted *counted)
{
	if (series == NULL || pg_atomic_read_u32(&series->generation) != generation)
		return;
	if (counted->cell < 0)
		pg_atomic_fetch_add_u64(&series->counters[counted->counter], counted->n);
	else if (counted->counter == EQ_COUNT_COMPLETED)
		pg_atomic_fetch_add_u32(&series->cells[EQ_RUN][counted->cell], 1);
	else
		pg_atomic_fetch_add_u32(
			&series
				 ->cells[counted->first ? EQ_WAIT : EQ_ATTEMPT_WAIT][counted->cell],
			1);
}

static void
count_at_commit(void)
{
	for (int i = 0; i < eq_counted_jobs.n; i++)
	{
		const Counted *counted = EQ_XACT_ENTRY(eq_counted_jobs, Counted, i);

		add_to_series(counted->job, counted->job_generation, counted);
		add_to_series(counted->tenant, counted->tenant_generation, counted);
	}
}

EqXactKind eq_counted_jobs = {
	.entry_size = sizeof(Counted),
	.at_commit = count_at_commit,
};

/* Releases the series of a dropped queue, or of a database (queue_id 0).  Can't throw. */
void
eq_forget_series(Oid dboid, int32 queue_id)
{
	TimestampTz now = GetCurrentTimestamp();

	if (queue_id < 0)
		return; /* a channel */
	LWLockAcquire(eq_series_pool->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n_series(); i++)
	{
		EqSeries *series = &eq_series_pool->series[i];

		if (pg_atomic_read_u32(&series->generation) != NOT_USED &&
			series->dboid == dboid &&
			(queue_id == 0 || series->queue_id == queue_id))
			give_back(series, now);
	}
	LWLockRelease(eq_series_pool->lock);
}

static bool
has_news(EqSeries *series)
{
	for (int c = 0; c < EQ_SERIES_COUNTERS; c++)
	{
		if (pg_atomic_read_u64(&series->counters[c]) != series->sampled[c])
			return true;
	}
	for (int h = 0; h < EQ_HISTOGRAMS; h++)
	{
		for (int i = 0; i < EQ_CELLS; i++)
		{
			if (pg_atomic_read_u32(&series->cells[h][i]) != 0)
				return true;
		}
	}
	return false;
}

/*
 * For the scheduler, after each sample: makes room, where there is little, for those who
 * are busy.  Series of this database in which nothing happened for some time go; if
 * tenants found none all the same, the one in which least happened.
 */
void
eq_give_back_quiet_series(TimestampTz round)
{
	TimestampTz now = GetCurrentTimestamp();
	bool wanted;

	LWLockAcquire(eq_series_pool->lock, LW_EXCLUSIVE);
	wanted = pg_atomic_read_u64(&eq_series_pool->last_no_room) >
			 now - 2 * USECS_PER_MINUTE;
	for (int pool = 0; pool < 2; pool++)
	{
		bool tenants = pool == 1;
		int first = tenants ? eq_series_pool->max_jobs : 0;
		int max = tenants ? eq_series_pool->max_tenants : eq_series_pool->max_jobs;
		int n = tenants ? eq_series_pool->n_tenants : eq_series_pool->n_jobs;
		bool is_short = n > max / 4 * 3 || wanted;
		EqSeries *least = NULL;

		for (int i = first; i < first + max; i++)
		{
			EqSeries *series = &eq_series_pool->series[i];

			if (pg_atomic_read_u32(&series->generation) == NOT_USED ||
				series->dboid != MyDatabaseId)
				continue;
			if (series->sampled_at < round)
				series->idle++;
			if (!is_short)
				continue;
			if (series->idle >= (tenants ? 5 : 60) && !has_news(series))
				give_back(series, now);
			else if (tenants && series->kind == EQ_SERIES_TENANT &&
					 (least == NULL || series->activity < least->activity))
				least = series;
		}
		if (least != NULL && wanted && !has_news(least) &&
			max - eq_series_pool->n_tenants <= max / 16)
			give_back(least, now);
	}
	LWLockRelease(eq_series_pool->lock);
}
