/*
 * fan_out.c: limits how many actions one event may lead to (event_queue.rule_fan_out).
 *
 * chain.c limits the depth of a chain, but not its breadth: a rule with 16 actions that may
 * repeat makes thousands of events of one, and so do many rules that match all events.  So
 * actions for events that rules led to are counted by the event at the head of the chain,
 * which metadata names as "rule_root"; above the limit no rule fires for its descendants.
 *
 * The rule runner counts in memory and writes with its batch; an executor that retries a
 * rule writes at once.  Both write in the transaction of the actions, so what is rolled
 * back is not counted.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "common/json.h"
#include "event_queue.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"

int eq_rule_fan_out = 10000; /* event_queue.rule_fan_out */

#define ROOT_BYTES 64 /* a UUID; what someone else has written is cut */

/* With the tenant, so that events of others that name the same root do not count. */
typedef struct RootKey
{
	char tenant[EQ_MAX_NAME + 1];
	char id[ROOT_BYTES];
} RootKey;

typedef struct Root
{
	RootKey key;
	int64 before; /* as the table has it */
	int64 added;  /* by this transaction */
} Root;

static HTAB *roots = NULL; /* of this transaction */

/* Forgets the counts, at the begin of a transaction. */
void
eq_forget_roots(void)
{
	if (roots)
		hash_destroy(roots);
	roots = NULL;
}

/* The head of the chain that led to an event; false: there is no chain. */
static bool
root_of(Datum event, RootKey *key)
{
	Jsonb *metadata = eq_event_metadata_of(event);
	JsonbValue buffer;
	char *root = eq_json_string(eq_json_member(metadata, EQ_RULE_ROOT, &buffer));

	if (root == NULL || eq_json_member(metadata, EQ_RULE_CHAIN, &buffer) == NULL)
		return false;
	memset(key, 0, sizeof(*key));
	strlcpy(key->tenant, eq_event_text(event, EVENT_TENANT), sizeof(key->tenant));
	memcpy(key->id, root, pg_mbcliplen(root, strlen(root), ROOT_BYTES - 1));
	return true;
}

static int64
read_root(const RootKey *key)
{
	static EqStatement read = {
		.sql = "SELECT actions FROM event_queue_internal.rule_root"
			   " WHERE tenant_id = $1 AND root = $2",
		.n_arguments = 2,
		.types = {TEXTOID, TEXTOID}};
	Datum values[2] = {CStringGetTextDatum(key->tenant),
					   CStringGetTextDatum(key->id)};
	int64 actions = 0;
	bool isnull;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&read, values, NULL);
	if (SPI_processed == 1)
		actions = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	eq_spi_end(&spi);
	return actions;
}

static Root *
find_root(Datum event)
{
	RootKey key;
	Root *root;
	bool found;

	if (!root_of(event, &key))
		return NULL;
	if (roots == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(RootKey), .entrysize = sizeof(Root)};

		roots = hash_create("event_queue roots", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	root = hash_search(roots, &key, HASH_FIND, NULL);
	if (root == NULL)
	{
		int64 before = read_root(&key); /* may throw: before the entry is there */

		root = hash_search(roots, &key, HASH_ENTER, &found);
		root->before = before;
		root->added = 0;
	}
	return root;
}

/* Has the head of the event's chain led to rule_fan_out actions? */
bool
eq_fan_out_is_over(Datum event)
{
	Root *root = find_root(event);

	return root != NULL && root->before + root->added >= eq_rule_fan_out;
}

/* Counts the actions of a rule that fired for the event. */
void
eq_count_fan_out(const EqRule *rule, Datum event)
{
	Root *root = find_root(event);

	if (root)
		root->added += Max(rule->n_actions, 1);
}

/* Writes the counts, at the end of the transaction. */
void
eq_write_roots(void)
{
	static EqStatement add = {
		.sql =
			"INSERT INTO event_queue_internal.rule_root AS r (tenant_id, root, actions) VALUES ($1, $2, $3)"
			" ON CONFLICT (tenant_id, root) DO UPDATE SET actions = r.actions + excluded.actions,"
			" at = excluded.at",
		.n_arguments = 3,
		.types = {TEXTOID, TEXTOID, INT8OID}};
	HASH_SEQ_STATUS all;
	Root *root;
	EqSpi spi;

	if (roots == NULL)
		return;
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	hash_seq_init(&all, roots);
	while ((root = hash_seq_search(&all)) != NULL)
	{
		Datum values[3] = {CStringGetTextDatum(root->key.tenant),
						   CStringGetTextDatum(root->key.id),
						   Int64GetDatum(root->added)};

		if (root->added > 0)
			eq_spi_run(&add, values, NULL);
	}
	eq_spi_end(&spi);
	eq_forget_roots();
}
