/*
 * shared_memory.c: what shared memory consists of.
 *
 * Each part belongs to the file that defines it.  Entries of databases (wake/database.c)
 * and slots (wake/slot.c) have numbers, under which other parts keep what is theirs of
 * the same database or queue.
 */
#include "postgres.h"

#include "storage/ipc.h"
#include "storage/shmem.h"

#include "event_queue.h"
#include "observe/metrics.h"
#include "queue/queue.h"
#include "store/members.h"
#include "store/store.h"
#include "wake/series.h"
#include "wake/wake.h"
#include "watch/watch.h"

static const EqSharedPart *const parts[] = {
	&eq_databases_part, &eq_slots_part,	 &eq_sleepers_part,		&eq_series_part,
	&eq_workers_part,	&eq_faults_part, &eq_positions_part,	&eq_activations_part,
	&eq_members_part,	&eq_marks_part,	 &eq_reservations_part, &eq_queue_slots_part,
	&eq_leases_part,	&eq_rates_part,	 &eq_samples_part,
};

/* Called while libraries are preloaded. */
void
eq_request_shared_memory(void)
{
	for (int i = 0; i < lengthof(parts); i++)
	{
		RequestAddinShmemSpace(MAXALIGN(parts[i]->size()));
		if (parts[i]->size_beside)
			RequestAddinShmemSpace(parts[i]->size_beside());
		if (parts[i]->n_locks > 0)
			RequestNamedLWLockTranche(parts[i]->name, parts[i]->n_locks);
	}
}

void
eq_attach_shared_memory(void)
{
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < lengthof(parts); i++)
	{
		bool found;
		void *memory = ShmemInitStruct(parts[i]->name, parts[i]->size(), &found);

		parts[i]->attach(
			memory,
			parts[i]->n_locks > 0 ? GetNamedLWLockTranche(parts[i]->name) : NULL,
			!found);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* An entry of a database is taken.  None of these throws. */
void
eq_begin_database(int number)
{
	for (int i = 0; i < lengthof(parts); i++)
	{
		if (parts[i]->begin_database)
			parts[i]->begin_database(number);
	}
}

/* Releases the shared memory of a database that was dropped, or whose extension was. */
void
eq_end_database(Oid dboid)
{
	for (int i = 0; i < lengthof(parts); i++)
	{
		if (parts[i]->end_database)
			parts[i]->end_database(dboid);
	}
}

/* A slot is taken. */
void
eq_begin_slot(int number)
{
	for (int i = 0; i < lengthof(parts); i++)
	{
		if (parts[i]->begin_slot)
			parts[i]->begin_slot(number);
	}
}

/* A slot is given back. */
void
eq_end_slot(int number)
{
	for (int i = 0; i < lengthof(parts); i++)
	{
		if (parts[i]->end_slot)
			parts[i]->end_slot(number);
	}
}
