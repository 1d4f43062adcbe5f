/*
 * members.c: which session has which buckets of a subscription.
 *
 * Kept in shared memory: the buckets of a member that ends are free at once.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"

#include "common/compare.h"
#include "event_queue.h"
#include "store/members.h"
#include "store/store.h"
#include "table/table.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_subscription_members);
PG_FUNCTION_INFO_V1(eq_member_use);

#define SHARE_OF_SESSION                                                            \
	1 /* as EQ_SHARE_OF_DATABASE: at most as much as it leaves free */
#define SHARE_OF_TENANT 1 /* of what is left for its database */
#define FEW_MEMBERS		4 /* of a tenant, which it has also beyond its share */

int eq_max_members = 1024;

/* One session that fetches from a subscription with several buckets. */
typedef struct Member
{
	int pid; /* 0: free */
	Oid dboid;
	int32 subscription_id;
	uint64 buckets; /* a bit for each */
	uint64 tenant;	/* hash of whose events it reads; 0: of all */
} Member;

/* Both are protected by members_lock. */
static int *n_members; /* where those end that are in use */
static Member *members;
static LWLock *members_lock;

static Size
members_size(void)
{
	return add_size(sizeof(uint64), mul_size(eq_max_members, sizeof(Member)));
}

static void
attach_members(void *memory, LWLockPadded *locks, bool is_new)
{
	n_members = memory;
	members = (Member *) ((char *) memory + sizeof(uint64));
	members_lock = &locks->lock;
	if (is_new)
		memset(memory, 0, members_size());
}

const EqSharedPart eq_members_part = {
	.name = "event_queue members",
	.n_locks = 1,
	.size = members_size,
	.attach = attach_members,
};

static void
free_member(Member *member)
{
	member->pid = 0;
	while (*n_members > 0 && members[*n_members - 1].pid == 0)
		(*n_members)--;
}

/* Session's end: its buckets are free. */
static void
leave_all(int code, Datum arg)
{
	LWLockAcquire(members_lock, LW_EXCLUSIVE);
	for (int i = 0; i < *n_members; i++)
	{
		if (members[i].pid == MyProcPid)
			free_member(&members[i]);
	}
	LWLockRelease(members_lock);
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

/* Where one more member may be; NULL: it may not, or there is no room. */
static Member *
find_unused(uint64 tenant)
{
	Member *unused = NULL;
	int free = eq_max_members;
	int of_session = 0;
	int of_tenant = 0;
	int of_database = 0;
	int left; /* how many more its database may have */

	for (int i = 0; i < *n_members; i++)
	{
		Member *member = &members[i];

		if (member->pid == 0)
		{
			if (unused == NULL)
				unused = member;
			continue;
		}
		free--;
		if (member->dboid == MyDatabaseId)
		{
			of_database++;
			of_session += member->pid == MyProcPid;
			of_tenant += member->tenant == tenant;
		}
	}
	left = (EQ_SHARE_OF_DATABASE * free - of_database) / (EQ_SHARE_OF_DATABASE + 1);
	if (!eq_is_fair_share(of_session, 1, free, SHARE_OF_SESSION) ||
		!eq_is_fair_share(of_database, 1, free, EQ_SHARE_OF_DATABASE) ||
		(tenant != 0 && of_tenant >= FEW_MEMBERS &&
		 !eq_is_fair_share(of_tenant, 1, left, SHARE_OF_TENANT)))
		return NULL;
	return unused ? unused : &members[(*n_members)++];
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
	LWLockAcquire(members_lock, LW_EXCLUSIVE);
	for (int i = 0; i < *n_members; i++)
	{
		Member *member = &members[i];

		if (member->pid != 0 && member->dboid == MyDatabaseId &&
			(n == 0 || bsearch(&member->subscription_id, ids, n, sizeof(int32),
							   eq_compare_int32) == NULL))
			free_member(member);
	}
	LWLockRelease(members_lock);
	eq_spi_end(&spi);
}

/*
 * This session's buckets, after it has given back what is above its share and
 * taken what is free below it.  tenant: whose events it reads; NULL: those of all.
 */
uint64
eq_share_buckets(int32 subscription_id, const char *tenant, int n_buckets)
{
	static bool leaves_at_exit = false;
	uint64 all = n_buckets == EQ_MAX_BUCKETS ? ~UINT64CONST(0)
											 : (UINT64CONST(1) << n_buckets) - 1;
	uint64 taken = 0;
	uint64 mine = 0;
	Member *me = NULL;
	int n = 0;
	int rank = 0;
	int share;
	uint64 tenant_hash = 0;

	if (tenant != NULL)
		tenant_hash = 1 | hash_bytes_extended((const unsigned char *) tenant,
											  strlen(tenant), 0);

	if (!leaves_at_exit)
	{
		before_shmem_exit(leave_all, (Datum) 0);
		leaves_at_exit = true;
	}

	LWLockAcquire(members_lock, LW_EXCLUSIVE);
	for (int i = 0; i < *n_members && me == NULL; i++)
	{
		Member *member = &members[i];

		if (member->pid == MyProcPid && is_member_of(member, subscription_id))
			me = member;
	}
	if (me == NULL && (me = find_unused(tenant_hash)) != NULL)
	{
		me->pid = MyProcPid;
		me->dboid = MyDatabaseId;
		me->subscription_id = subscription_id;
		me->buckets = 0;
		me->tenant = tenant_hash;
	}
	for (int i = 0; i < *n_members && me != NULL; i++)
	{
		Member *member = &members[i];

		if (!is_member_of(member, subscription_id))
			continue;
		if (member == me)
			rank = n;
		else
			taken |= member->buckets;
		n++;
	}
	if (me != NULL)
	{
		share = n_buckets / n + (rank < n_buckets % n ? 1 : 0);
		mine = lowest_bits(me->buckets, share);
		mine |= lowest_bits(all & ~taken & ~mine, share - pg_popcount64(mine));
		me->buckets = mine;
	}
	LWLockRelease(members_lock);

	if (me == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many sessions are members of subscriptions"),
			 errdetail(
				 "There may be %d.  A database may have three quarters of them, a session half, and a tenant half of those of its database.",
				 eq_max_members),
			 errhint(
				 "Call event_queue.leave_subscription for subscriptions that a session no longer reads, or raise event_queue.max_subscription_members and restart the server.")));
	return mine;
}

/* Leaves the members of a subscription. */
void
eq_leave_group(int32 subscription_id)
{
	LWLockAcquire(members_lock, LW_EXCLUSIVE);
	for (int i = 0; i < *n_members; i++)
	{
		Member *member = &members[i];

		if (member->pid == MyProcPid && is_member_of(member, subscription_id))
			free_member(member);
	}
	LWLockRelease(members_lock);
}

Datum
eq_subscription_members(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Member *copy = palloc(eq_max_members * sizeof(Member));
	int n;

	LWLockAcquire(members_lock, LW_SHARED);
	n = *n_members;
	memcpy(copy, members, n * sizeof(Member));
	LWLockRelease(members_lock);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
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

/* How many members there are and may be, in all databases. */
Datum
eq_member_use(PG_FUNCTION_ARGS)
{
	TupleDesc desc;
	Datum values[2];
	bool nulls[2] = {false, false};
	int used = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	LWLockAcquire(members_lock, LW_SHARED);
	for (int i = 0; i < *n_members; i++)
		used += members[i].pid != 0;
	LWLockRelease(members_lock);
	values[0] = Int32GetDatum(used);
	values[1] = Int32GetDatum(eq_max_members);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
