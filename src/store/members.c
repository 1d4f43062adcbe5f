/*
 * members.c: which session has which buckets of a subscription.
 *
 * In shared memory: a member that ends leaves its buckets to the others at once.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "event_queue.h"
#include "store/members.h"
#include "store/store.h"
#include "table/table.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_subscription_members);

#define MAX_MEMBERS		 1024
#define SHARE_OF_SESSION 1 /* as EQ_SHARE_OF_DATABASE */

/* One session that fetches from a subscription with several buckets. */
typedef struct Member
{
	int pid; /* 0: free */
	Oid dboid;
	int32 subscription_id;
	uint64 buckets; /* a bit for each */
} Member;

static Member *members; /* under EqShared->lock */

Size
eq_members_shmem_size(void)
{
	return MAX_MEMBERS * sizeof(Member);
}

void
eq_members_shmem_init(void)
{
	bool found;

	members = ShmemInitStruct("event_queue members", eq_members_shmem_size(),
							  &found);
	if (!found)
		memset(members, 0, eq_members_shmem_size());
}

/* Session's end: its buckets are free. */
static void
leave_all(int code, Datum arg)
{
	LWLockAcquire(eq_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_MEMBERS; i++)
	{
		if (members[i].pid == MyProcPid)
			members[i].pid = 0;
	}
	LWLockRelease(eq_shared->lock);
}

static int
compare_ids(const void *a, const void *b)
{
	int32 x = *(const int32 *) a;
	int32 y = *(const int32 *) b;

	return x < y ? -1 : x > y;
}

static bool
is_member_of(const Member *member, int32 subscription_id)
{
	return member->pid != 0 && member->dboid == MyDatabaseId &&
		   member->subscription_id == subscription_id;
}

/* The lowest n bits that are set. */
static uint64
lowest_bits(uint64 bits, int n)
{
	uint64 result = 0;

	for (; n > 0 && bits != 0; n--)
	{
		result |= bits & -bits;
		bits &= bits - 1;
	}
	return result;
}

/* May this session be one more member?  With the lock held. */
static bool
has_fair_share(void)
{
	int free = 0;
	int of_session = 0;
	int of_database = 0;

	for (int i = 0; i < MAX_MEMBERS; i++)
	{
		const Member *member = &members[i];

		if (member->pid == 0)
			free++;
		else if (member->dboid == MyDatabaseId)
		{
			of_database++;
			of_session += member->pid == MyProcPid;
		}
	}
	return eq_is_fair_share(of_session, 1, free, SHARE_OF_SESSION) &&
		   eq_is_fair_share(of_database, 1, free, EQ_SHARE_OF_DATABASE);
}

/*
 * For the scheduler: subscriptions that are not in the table, dropped or rolled back,
 * have no members.  One that another transaction is creating loses its own, too, and
 * gets it again with its next fetch.
 */
void
eq_forget_members(void)
{
	EqSpi spi;
	int32 *ids;
	int n;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT subscription_id FROM event_queue.subscription ORDER BY 1", true,
			0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table subscription");
	n = SPI_processed;
	ids = palloc(Max(n, 1) * sizeof(int32));
	for (int i = 0; i < n; i++)
	{
		bool isnull;

		ids[i] = DatumGetInt32(
			SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	LWLockAcquire(eq_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_MEMBERS; i++)
	{
		Member *member = &members[i];

		if (member->pid != 0 && member->dboid == MyDatabaseId &&
			(n == 0 || bsearch(&member->subscription_id, ids, n, sizeof(int32),
							   compare_ids) == NULL))
			member->pid = 0;
	}
	LWLockRelease(eq_shared->lock);
	eq_spi_end(&spi);
}

/*
 * This session's buckets, after it has given back what is above its share and
 * taken what is free below it.
 */
uint64
eq_share_buckets(int32 subscription_id, int n_buckets)
{
	static bool leaves_at_exit = false;
	uint64 all = n_buckets == EQ_MAX_BUCKETS ? ~UINT64CONST(0)
											 : (UINT64CONST(1) << n_buckets) - 1;
	uint64 taken = 0;
	uint64 mine = 0;
	Member *me = NULL;
	int n_members = 0;
	int rank = 0;
	int share;

	if (!leaves_at_exit)
	{
		before_shmem_exit(leave_all, (Datum) 0);
		leaves_at_exit = true;
	}

	LWLockAcquire(eq_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_MEMBERS && me == NULL; i++)
	{
		Member *member = &members[i];

		if (member->pid == MyProcPid && is_member_of(member, subscription_id))
			me = member;
	}
	for (int i = 0; i < MAX_MEMBERS && me == NULL; i++)
	{
		Member *member = &members[i];

		if (member->pid != 0)
			continue;
		if (!has_fair_share())
			break;
		me = member;
		me->pid = MyProcPid;
		me->dboid = MyDatabaseId;
		me->subscription_id = subscription_id;
		me->buckets = 0;
	}
	for (int i = 0; i < MAX_MEMBERS && me != NULL; i++)
	{
		Member *member = &members[i];

		if (!is_member_of(member, subscription_id))
			continue;
		if (member == me)
			rank = n_members;
		else
			taken |= member->buckets;
		n_members++;
	}
	if (me != NULL)
	{
		share = n_buckets / n_members + (rank < n_buckets % n_members ? 1 : 0);
		mine = lowest_bits(me->buckets, share);
		mine |= lowest_bits(all & ~taken & ~mine, share - pg_popcount64(mine));
		me->buckets = mine;
	}
	LWLockRelease(eq_shared->lock);

	if (me == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many sessions are members of subscriptions"),
			 errdetail("There may be %d; of those that are left, a session may"
					   " be half of them, and those of a database three quarters.",
					   MAX_MEMBERS),
			 errhint("Call event_queue.leave_subscription for those that"
					 " a session reads no more.")));
	return mine;
}

/* Leaves the members of a subscription. */
void
eq_leave_group(int32 subscription_id)
{
	LWLockAcquire(eq_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_MEMBERS; i++)
	{
		Member *member = &members[i];

		if (member->pid == MyProcPid && is_member_of(member, subscription_id))
			member->pid = 0;
	}
	LWLockRelease(eq_shared->lock);
}

Datum
eq_subscription_members(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Member *copy = palloc(MAX_MEMBERS * sizeof(Member));

	LWLockAcquire(eq_shared->lock, LW_SHARED);
	memcpy(copy, members, MAX_MEMBERS * sizeof(Member));
	LWLockRelease(eq_shared->lock);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < MAX_MEMBERS; i++)
	{
		Datum values[3];
		bool nulls[3] = {false};

		if (copy[i].pid == 0 || copy[i].dboid != MyDatabaseId)
			continue;
		values[0] = Int32GetDatum(copy[i].subscription_id);
		values[1] = Int32GetDatum(copy[i].pid);
		values[2] = Int32GetDatum(pg_popcount64(copy[i].buckets));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
