/*
 * faults.c: faults: what the workers cannot do at present, for health() and for each other.
 *
 * A fault has a kind ("scheduler", "rule runner": a chore of it; "rule", "handler",
 * "worker") and a name.  It exists from the first failure to the next success, with the last
 * error and the time of the next try.  The table is small and in shared memory: after a
 * restart faults are detected again.  Nothing here throws.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "event_queue.h"
#include "tenant/tenant.h"
#include "watch/watch.h"

#define MAX_FAULTS 512

typedef struct Fault
{
	Oid dboid; /* InvalidOid: free */
	uint64 key;
	int failures; /* in a row */
	TimestampTz since;
	TimestampTz last;
	TimestampTz retry_at; /* 0: not known */
	char kind[32];
	char name[EQ_FAULT_NAME]; /* cut; key tells names apart */
	char sqlstate[6];
	char message[256];

	/* Of one that eq_note_item has noted. */
	bool is_item;
	bool said;					  /* in the log */
	char said_state[6];			  /* with this SQLSTATE */
	char tenant[EQ_MAX_NAME + 1]; /* empty: of none */
	char hint[256];
} Fault;

typedef struct Faults
{
	LWLock *lock;
	pg_atomic_uint32 n; /* in use; read without the lock */
	Fault all[MAX_FAULTS];
} Faults;

static Faults *faults = NULL;

PG_FUNCTION_INFO_V1(eq_faults);
PG_FUNCTION_INFO_V1(eq_note_fault_sql);
PG_FUNCTION_INFO_V1(eq_clear_fault_sql);
PG_FUNCTION_INFO_V1(eq_fault_retry_at_sql);

static Size
faults_size(void)
{
	return sizeof(Faults);
}

static void
attach_faults(void *memory, LWLockPadded *locks, bool is_new)
{
	faults = memory;
	if (!is_new)
		return;
	memset(faults, 0, faults_size());
	faults->lock = &locks->lock;
	pg_atomic_init_u32(&faults->n, 0);
}

const EqSharedPart eq_faults_part = {
	.name = "event_queue faults",
	.n_locks = 1,
	.size = faults_size,
	.attach = attach_faults,
};

static uint64
key_of(const char *kind, const char *name)
{
	uint64 key = hash_bytes_extended((const unsigned char *) kind, strlen(kind), 0);

	return hash_bytes_extended((const unsigned char *) name, strlen(name), key);
}

/*
 * Finds a fault, with the lock held; NULL if there is none.  Most are at the start of
 * the array.
 */
static Fault *
find(uint64 key)
{
	uint32 left = pg_atomic_read_u32(&faults->n);

	for (int i = 0; i < MAX_FAULTS && left > 0; i++)
	{
		if (OidIsValid(faults->all[i].dboid))
			left--;
		if (faults->all[i].dboid == MyDatabaseId && faults->all[i].key == key)
			return &faults->all[i];
	}
	return NULL;
}

/* A free entry, or that of the fault that was heard of last the longest ago. */
static Fault *
take_entry(void)
{
	Fault *oldest = &faults->all[0];

	for (int i = 0; i < MAX_FAULTS; i++)
	{
		Fault *fault = &faults->all[i];

		if (!OidIsValid(fault->dboid))
		{
			pg_atomic_fetch_add_u32(&faults->n, 1);
			return fault;
		}
		if (fault->last < oldest->last)
			oldest = fault;
	}
	return oldest;
}

static void
copy_cut(char *to, const char *from, int size)
{
	int length = pg_mbcliplen(from, strlen(from), size - 1);

	memcpy(to, from, length);
	to[length] = '\0';
}

/*
 * Notes one more failure.  It is tried again after first_ms, twice that, and so on, up
 * to most_ms; returns when.
 */
TimestampTz
eq_note_fault(const char *kind, const char *name, const char *sqlstate,
			  const char *message, int first_ms, int most_ms)
{
	uint64 key = key_of(kind, name);
	TimestampTz now = GetCurrentTimestamp();
	int64 delay = first_ms;
	TimestampTz retry_at;
	Fault *fault;

	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	fault = find(key);
	if (fault == NULL)
	{
		fault = take_entry();
		memset(fault, 0, sizeof(Fault));
		fault->dboid = MyDatabaseId;
		fault->key = key;
		fault->since = now;
		strlcpy(fault->kind, kind, sizeof(fault->kind));
		copy_cut(fault->name, name, sizeof(fault->name));
	}
	for (int i = 0; i < fault->failures && delay < most_ms; i++)
		delay *= 2;
	fault->failures++;
	fault->last = now;
	retry_at = fault->retry_at = now + Min(delay, most_ms) * 1000;
	strlcpy(fault->sqlstate, sqlstate, sizeof(fault->sqlstate));
	copy_cut(fault->message, message ? message : "", sizeof(fault->message));
	LWLockRelease(faults->lock);
	return retry_at;
}

/* Clears the fault after a success; true if there was one. */
bool
eq_clear_fault(const char *kind, const char *name)
{
	Fault *fault;

	if (pg_atomic_read_u32(&faults->n) == 0)
		return false;
	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	fault = find(key_of(kind, name));
	if (fault != NULL)
	{
		fault->dboid = InvalidOid;
		pg_atomic_fetch_sub_u32(&faults->n, 1);
	}
	LWLockRelease(faults->lock);
	return fault != NULL;
}

/*
 * All of a kind (NULL: of every kind) but those whose name is_known finds (NULL: all);
 * the name is cut to EQ_FAULT_NAME - 1 bytes.
 */
void
eq_clear_faults(Oid dboid, const char *kind, bool (*is_known)(const char *name))
{
	if (pg_atomic_read_u32(&faults->n) == 0)
		return;
	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_FAULTS; i++)
	{
		Fault *fault = &faults->all[i];

		if (!OidIsValid(fault->dboid) || fault->dboid != dboid ||
			(kind != NULL && strcmp(fault->kind, kind) != 0) ||
			(is_known != NULL && is_known(fault->name)))
			continue;
		fault->dboid = InvalidOid;
		pg_atomic_fetch_sub_u32(&faults->n, 1);
	}
	LWLockRelease(faults->lock);
}

/*
 * How often it has failed in a row, 0 if it is well, and when it is to be tried
 * again.
 */
int
eq_failures_of(const char *kind, const char *name, TimestampTz *retry_at)
{
	Fault *fault;
	int failures = 0;

	*retry_at = 0;
	if (pg_atomic_read_u32(&faults->n) == 0)
		return 0;
	LWLockAcquire(faults->lock, LW_SHARED);
	fault = find(key_of(kind, name));
	if (fault != NULL)
	{
		failures = fault->failures;
		/* If it is of a time to come, the clock was set back. */
		if (fault->last <= GetCurrentTimestamp() + USECS_PER_SEC)
			*retry_at = fault->retry_at;
	}
	LWLockRelease(faults->lock);
	return failures;
}

/*
 * Items: queues, schedules, groups, partitions, chores, each tried again for itself.
 * A fault of one is said in the log when it begins, when its SQLSTATE changes and
 * when it is over.  One that is not noted anew some minutes after it was due is of
 * something that is not tried any more (a queue that was dropped).
 */
#define STALE_US	  (3 * USECS_PER_MINUTE)
#define FIRST_MS	  1000
#define LAST_MS		  64000
#define FIRST_LOCK_MS 100 /* a lock goes when it goes */
#define LAST_LOCK_MS  1600
#define SAY_LOCK_AT	  3 /* that often in a row: it is held for long */

static bool
is_stale(const Fault *fault, TimestampTz now)
{
	return fault->is_item && fault->retry_at + STALE_US < now;
}

static void
remove_stale(void)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_FAULTS; i++)
	{
		if (!OidIsValid(faults->all[i].dboid) || !is_stale(&faults->all[i], now))
			continue;
		faults->all[i].dboid = InvalidOid;
		pg_atomic_fetch_sub_u32(&faults->n, 1);
	}
	LWLockRelease(faults->lock);
}

/* Notes a failure; returns when it may be tried again.  tenant and hint may be NULL. */
TimestampTz
eq_note_item(const char *kind, const char *name, const char *tenant, int sqlerrcode,
			 const char *message, const char *hint)
{
	bool is_lock = sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
	const char *state = unpack_sql_state(sqlerrcode);
	TimestampTz retry_at;
	bool say = false;
	Fault *fault;

	remove_stale();
	retry_at = eq_note_fault(kind, name, state, message,
							 is_lock ? FIRST_LOCK_MS : FIRST_MS,
							 is_lock ? LAST_LOCK_MS : LAST_MS);
	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	fault = find(key_of(kind, name));
	if (fault != NULL)
	{
		fault->is_item = true;
		copy_cut(fault->tenant, tenant ? tenant : "", sizeof(fault->tenant));
		copy_cut(fault->hint, hint ? hint : "", sizeof(fault->hint));
		say = (!fault->said || strcmp(fault->said_state, state) != 0) &&
			  (!is_lock || fault->failures >= SAY_LOCK_AT);
		if (say)
		{
			fault->said = true;
			strlcpy(fault->said_state, state, sizeof(fault->said_state));
		}
	}
	LWLockRelease(faults->lock);
	if (say)
		ereport(LOG, (errmsg("event_queue: %s \"%s\" fails: %s (%s)", kind, name,
							 message ? message : "", state)));
	return retry_at;
}

/* Clears a fault: it works again, or (quietly) is gone. */
void
eq_clear_item(const char *kind, const char *name, bool quietly)
{
	bool said = false;
	Fault *fault;

	if (pg_atomic_read_u32(&faults->n) == 0)
		return;
	LWLockAcquire(faults->lock, LW_SHARED);
	fault = find(key_of(kind, name));
	if (fault != NULL)
		said = fault->said;
	LWLockRelease(faults->lock);
	if (eq_clear_fault(kind, name) && said && !quietly)
		ereport(LOG, (errmsg("event_queue: %s \"%s\" works again", kind, name)));
}

/* What failed may work now. */
void
eq_retry_now(const char *kind, const char *name)
{
	Fault *fault;

	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	fault = find(key_of(kind, name));
	if (fault != NULL)
		fault->retry_at = Min(fault->retry_at, GetCurrentTimestamp());
	LWLockRelease(faults->lock);
}

/* The configuration changed: what failed may work now. */
void
eq_retry_items_now(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (pg_atomic_read_u32(&faults->n) == 0)
		return;
	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_FAULTS; i++)
	{
		Fault *fault = &faults->all[i];

		if (fault->dboid == MyDatabaseId && fault->is_item && !is_stale(fault, now))
			fault->retry_at = Min(fault->retry_at, now);
	}
	LWLockRelease(faults->lock);
}

/* The hint of a fault: its own, or the usual one for its SQLSTATE. */
static const char *
hint_of(const Fault *fault)
{
	const char *state = fault->sqlstate;

	if (fault->hint[0] != '\0')
		return fault->hint;
	switch (MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]))
	{
		case ERRCODE_DISK_FULL:
			return "Make room on the disk.";
		case ERRCODE_READ_ONLY_SQL_TRANSACTION:
			return "default_transaction_read_only is on, for the server or the database (pg_db_role_setting); workers go on when it is off, those of a database once they have started anew.";
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return "The line \"locks\" of event_queue.health() names the session that holds the lock.";
		default:
			return "";
	}
}

/*
 * All faults.  A session of one tenant sees its own; of what belongs to no tenant only
 * that it fails, as the error may show others' data.
 */
Datum
eq_faults(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *confined = eq_confined_tenant();
	Fault *copy = palloc(sizeof(faults->all));
	TimestampTz now = GetCurrentTimestamp();

	InitMaterializedSRF(fcinfo, 0);
	LWLockAcquire(faults->lock, LW_SHARED);
	memcpy(copy, faults->all, sizeof(faults->all));
	LWLockRelease(faults->lock);
	for (int i = 0; i < MAX_FAULTS; i++)
	{
		Fault *fault = &copy[i];
		Datum values[10];
		bool nulls[10] = {false};
		bool own = confined == NULL || strcmp(fault->tenant, confined) == 0;

		if (fault->dboid != MyDatabaseId || is_stale(fault, now) ||
			(!own &&
			 (fault->tenant[0] != '\0' || strncmp(fault->kind, "rule", 4) == 0)))
			continue;
		values[0] = CStringGetTextDatum(fault->kind);
		values[1] = CStringGetTextDatum(fault->name);
		values[2] = CStringGetTextDatum(fault->tenant);
		nulls[2] = fault->tenant[0] == '\0';
		values[3] = TimestampTzGetDatum(fault->since);
		values[4] = TimestampTzGetDatum(fault->last);
		values[5] = TimestampTzGetDatum(fault->retry_at);
		nulls[5] = fault->retry_at == 0;
		values[6] = Int64GetDatum(fault->failures);
		values[7] = CStringGetTextDatum(fault->sqlstate);
		values[8] = CStringGetTextDatum(fault->message);
		nulls[8] = !own;
		values[9] = CStringGetTextDatum(hint_of(fault));
		nulls[9] = !own || hint_of(fault)[0] == '\0';
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static char *
name_argument(FunctionCallInfo fcinfo, int n)
{
	char *name = text_argument(fcinfo, n);

	return name ? name : pstrdup("");
}

Datum
eq_note_fault_sql(PG_FUNCTION_ARGS)
{
	char *state = text_argument(fcinfo, 3);
	int sqlerrcode = ERRCODE_INTERNAL_ERROR;

	if (state && strlen(state) == 5)
		sqlerrcode = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
	(void) eq_note_item(name_argument(fcinfo, 0), name_argument(fcinfo, 1),
						text_argument(fcinfo, 2), sqlerrcode,
						text_argument(fcinfo, 4), text_argument(fcinfo, 5));
	PG_RETURN_VOID();
}

Datum
eq_clear_fault_sql(PG_FUNCTION_ARGS)
{
	eq_clear_item(name_argument(fcinfo, 0), name_argument(fcinfo, 1),
				  !PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	PG_RETURN_VOID();
}

Datum
eq_fault_retry_at_sql(PG_FUNCTION_ARGS)
{
	TimestampTz at;

	if (eq_failures_of(name_argument(fcinfo, 0), name_argument(fcinfo, 1), &at) == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(at);
}
