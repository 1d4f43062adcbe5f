/*
 * runs.c: records for which events rules have fired (runs.sql).
 *
 * The rule runner collects the firings of a batch and writes them with one statement, in the
 * batch's transaction.  A firing whose subtransaction was rolled back is not recorded.  An
 * executor writes its own at once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "common/json.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "table/table.h"

int eq_keep_rule_runs_s = 7 * 24 * 3600; /* event_queue.keep_rule_runs */

typedef struct Run
{
	int32 rule_id;
	int32 version;
	int64 position;
	bool fired; /* else a job tries it again */
	bool backfilled;
} Run;

static Run *runs = NULL; /* of the present batch */
static int n_runs = 0;
static int room = 0;

void
eq_forget_noted_runs(void)
{
	n_runs = 0;
}

void
eq_note_run(const EqRule *rule, int64 position, bool fired, bool backfilled)
{
	if (n_runs == room)
	{
		int more = Max(2 * room, 256);

		runs = runs ? repalloc(runs, more * sizeof(Run))
					: MemoryContextAlloc(TopMemoryContext, more * sizeof(Run));
		room = more;
	}
	runs[n_runs++] = (Run){.rule_id = rule->rule_id,
						   .version = rule->version,
						   .position = position,
						   .fired = fired,
						   .backfilled = backfilled};
}

/* Writes what was noted. */
void
eq_write_runs(void)
{
	static EqStatement write = {
		.sql = "INSERT INTO event_queue_internal.rule_run"
			   " (rule_id, position, version, fired, backfilled)"
			   " SELECT * FROM unnest($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
		.n_arguments = 5,
		.types = {INT4ARRAYOID, INT8ARRAYOID, INT4ARRAYOID, BOOLARRAYOID,
				  BOOLARRAYOID}};
	Datum *columns[5];
	Datum values[5];
	static const struct
	{
		Oid type;
		int size;
		bool by_value;
		char align;
	} of[5] = {{INT4OID, sizeof(int32), true, TYPALIGN_INT},
			   {INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
			   {INT4OID, sizeof(int32), true, TYPALIGN_INT},
			   {BOOLOID, 1, true, TYPALIGN_CHAR},
			   {BOOLOID, 1, true, TYPALIGN_CHAR}};

	if (n_runs == 0)
		return;
	for (int i = 0; i < 5; i++)
		columns[i] = palloc(n_runs * sizeof(Datum));
	for (int i = 0; i < n_runs; i++)
	{
		columns[0][i] = Int32GetDatum(runs[i].rule_id);
		columns[1][i] = Int64GetDatum(runs[i].position);
		columns[2][i] = Int32GetDatum(runs[i].version);
		columns[3][i] = BoolGetDatum(runs[i].fired);
		columns[4][i] = BoolGetDatum(runs[i].backfilled);
	}
	for (int i = 0; i < 5; i++)
		values[i] = PointerGetDatum(construct_array(columns[i], n_runs, of[i].type,
													of[i].size, of[i].by_value,
													of[i].align));
	n_runs = 0;
	eq_run_as_owner(&write, values, NULL);
}

/* For an executor: a rule that was tried again has fired after all, or not. */
void
eq_settle_run(const EqRule *rule, int64 position, bool fired)
{
	static EqStatement write = {
		.sql =
			"INSERT INTO event_queue_internal.rule_run AS r"
			" (rule_id, position, version, fired, backfilled)"
			" VALUES ($1, $2, $3, true, false) ON CONFLICT (rule_id, position)"
			" DO UPDATE SET fired = true, version = excluded.version, at = excluded.at",
		.n_arguments = 3,
		.types = {INT4OID, INT8OID, INT4OID}};
	static EqStatement forget = {
		.sql = "DELETE FROM event_queue_internal.rule_run"
			   " WHERE rule_id = $1 AND position = $2 AND NOT fired",
		.n_arguments = 2,
		.types = {INT4OID, INT8OID}};
	Datum values[3] = {Int32GetDatum(rule->rule_id), Int64GetDatum(position),
					   Int32GetDatum(rule->version)};

	eq_run_as_owner(fired ? &write : &forget, values, NULL);
}
