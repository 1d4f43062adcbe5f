/*
 * token.c: the token of a lease.
 *
 * A UUID that is used once: 74 random bits, drawn for each claim, and the TID (block and
 * offset) to which the index entries of the job's row point, so that settling the job
 * needs no index search.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "queue/queue.h"

/* Makes the token of a lease from the random bits of the claim and the TID. */
void
eq_make_token(pg_uuid_t *token, const uint8 *random, ItemPointer root)
{
	BlockNumber block = ItemPointerGetBlockNumber(root);
	OffsetNumber offset = ItemPointerGetOffsetNumber(root);

	memcpy(token->data, &block, 4);
	memcpy(token->data + 4, &offset, 2);
	memcpy(token->data + 6, random, EQ_TOKEN_RANDOM);
	token->data[6] = 0x80 | (token->data[6] & 0x0f);
	token->data[8] = 0x80 | (token->data[8] & 0x3f);
}

/* Reads the TID out of a token. */
void
eq_token_tid(const pg_uuid_t *token, ItemPointer root)
{
	BlockNumber block;
	OffsetNumber offset;

	memcpy(&block, token->data, 4);
	memcpy(&offset, token->data + 4, 2);
	ItemPointerSet(root, block, offset);
}

/*
 * Draws random bytes for the tokens of one claim, from a pool, since a call of
 * pg_strong_random is expensive.
 */
void
eq_draw_token_random(uint8 *random)
{
	static uint8 pool[64 * EQ_TOKEN_RANDOM];
	static int used = sizeof(pool);

	if (used == sizeof(pool))
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
							errmsg("could not generate a lease token")));
		used = 0;
	}
	memcpy(random, pool + used, EQ_TOKEN_RANDOM);
	used += EQ_TOKEN_RANDOM;
}
