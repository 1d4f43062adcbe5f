/*
 * doctor_catalog.c: compares the catalog with what the install script makes.
 *
 * expected.pl reads that out of the script when the program is built; it goes to the
 * server as one JSON parameter, and what is missing comes back by its number.
 */
#include "doctor.h"

static const struct
{
	const char *kind;
	const char *place; /* the table; empty: none */
	const char *name;
	const char
		*what; /* the statement that makes it; of a function: md5 of its body */
} expected[] = {
#include "doctor_expected.inc"
};

void
eq_doctor_expected(EqBuf *json)
{
	eq_buf_char(json, '[');
	for (int i = 0; i < lengthof(expected); i++)
	{
		bool is_function = expected[i].place[0] == '\0';

		eq_buf_printf(
			json,
			"%s{\"n\": %d, \"kind\": \"%s\", \"place\": \"%s\", \"name\": \"%s\", \"digest\": \"%s\"}",
			i > 0 ? ",\n" : "", i, expected[i].kind, expected[i].place,
			expected[i].name, is_function ? expected[i].what : "");
	}
	eq_buf_char(json, ']');
}

/* The statement that makes it again. */
const char *
eq_doctor_repair(int number)
{
	return number >= 0 && number < lengthof(expected) ? expected[number].what : "";
}

/* What is not there: its number, kind, table and name. */
const char *eq_doctor_catalog_sql =
	"WITH e AS (SELECT x.*, to_regclass(nullif(x.place, '')) AS rel FROM jsonb_to_recordset($1::jsonb) "
	"AS x(n int, kind text, place text, name text, digest text)) "
	"SELECT n, kind, place, name FROM e "
	"WHERE CASE kind WHEN 'table' THEN rel IS NULL WHEN 'view' THEN rel IS NULL "
	"WHEN 'index' THEN rel IS NOT NULL AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
	"WHERE i.indrelid = e.rel AND c.relname = e.name) "
	"WHEN 'constraint' THEN rel IS NOT NULL AND NOT EXISTS (SELECT FROM pg_constraint c "
	"WHERE c.conrelid = e.rel AND c.conname = e.name) "
	"WHEN 'trigger' THEN rel IS NOT NULL AND NOT EXISTS (SELECT FROM pg_trigger t "
	"WHERE t.tgrelid = e.rel AND t.tgname = e.name) "
	"WHEN 'always' THEN EXISTS (SELECT FROM pg_trigger t "
	"WHERE t.tgrelid = e.rel AND t.tgname = e.name AND t.tgenabled <> 'A') "
	"WHEN 'row security' THEN EXISTS (SELECT FROM pg_class c WHERE c.oid = e.rel AND NOT c.relrowsecurity) "
	"WHEN 'policy' THEN rel IS NOT NULL AND NOT EXISTS (SELECT FROM pg_policy p "
	"WHERE p.polrelid = e.rel AND p.polname = e.name) ELSE false END ORDER BY n";

/*
 * Functions that are not as they were made: their body, whose rights they have, their
 * search_path.  (level, item, detail, repair), as the other checks.
 */
const char *eq_doctor_functions_sql =
	"WITH e AS (SELECT x.* FROM jsonb_to_recordset($1::jsonb) "
	"AS x(n int, kind text, place text, name text, digest text) WHERE place = ''), "
	"f AS (SELECT p.*, n.nspname || '.' || p.proname AS name, l.lanname FROM pg_proc p "
	"JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang "
	"WHERE n.nspname IN ('event_queue', 'event_queue_internal') AND p.prokind <> 'a') "
	"SELECT 'error' AS level, e.name AS item, CASE WHEN EXISTS (SELECT FROM f WHERE f.name = e.name) "
	"THEN 'the function has another body than the extension gave it' ELSE 'the function is not there' END AS detail, "
	"NULL AS repair FROM e WHERE e.kind IN ('function', 'procedure') AND NOT EXISTS (SELECT FROM f "
	"WHERE f.name = e.name AND (e.digest = '' OR md5(f.prosrc) = e.digest)) "
	"UNION ALL SELECT 'error', f.name, 'the function does not act with its owner''s rights', "
	"format('ALTER FUNCTION %s SECURITY DEFINER', f.oid::regprocedure) "
	"FROM f JOIN e ON e.kind = 'definer' AND e.name = f.proname WHERE NOT f.prosecdef "
	"UNION ALL SELECT 'error', f.name, 'the function has no search_path of its own', "
	"format('ALTER FUNCTION %s SET search_path = pg_catalog, event_queue, pg_temp', f.oid::regprocedure) "
	"FROM f WHERE f.prosecdef AND NOT coalesce(array_to_string(f.proconfig, ' ') ~ 'search_path', false) "
	"ORDER BY 2";
