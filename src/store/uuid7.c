/*
 * uuid7.c: time-ordered identifiers (RFC 9562, version 7).
 *
 * 48 bits of Unix milliseconds, 12 bits of the fraction of the millisecond,
 * 62 random bits.  Within a backend each one is greater than the last.
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "port.h"
#include "utils/timestamp.h"

#include "store/store.h"

PG_FUNCTION_INFO_V1(eq_uuid_v7_sql);

#define UNIX_EPOCH_US                                                               \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

void
eq_make_uuid_v7(pg_uuid_t *uuid, int64 now)
{
	static int64 last_tick = 0;
	int64 unix_us = now + UNIX_EPOCH_US;
	int64 tick; /* milliseconds x 4096 + fraction */

	tick = (unix_us / 1000) * 4096 + (unix_us % 1000) * 4096 / 1000;
	if (tick <= last_tick)
		tick = last_tick + 1;
	last_tick = tick;

	if (!pg_strong_random(uuid->data, UUID_LEN))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not generate random values")));
	for (int i = 0; i < 6; i++)
		uuid->data[i] = (tick >> 12) >> (40 - 8 * i);
	uuid->data[6] = 0x70 | ((tick >> 8) & 0x0f);
	uuid->data[7] = tick & 0xff;
	uuid->data[8] = 0x80 | (uuid->data[8] & 0x3f);
}

Datum
eq_uuid_v7_sql(PG_FUNCTION_ARGS)
{
	pg_uuid_t *uuid = palloc(sizeof(pg_uuid_t));

	eq_make_uuid_v7(uuid, GetCurrentTimestamp());
	PG_RETURN_UUID_P(uuid);
}
