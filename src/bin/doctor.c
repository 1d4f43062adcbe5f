/*
 * doctor.c: "eventq doctor": compares what should be there with what is there, and prints
 * the SQL that repairs.  It changes nothing.
 *
 * Exit status: 0 all is well (warnings count with --strict only), 1 it could not look, 3
 * something is wrong.
 */
#include <stdlib.h>
#include <string.h>

#include "doctor.h"

static bool strict, only_sql;
const EqOption eq_doctor_options[] = {
	{"strict", NULL, NULL, &strict, "warnings are errors, too"},
	{"sql", NULL, NULL, &only_sql,
	 "print the repairs alone, for psql; those that need a look as comments"},
	{NULL}};

typedef struct Doctor
{
	EqCli *cli;
	int errors;
	int warnings;
	int rows;
	bool could_not_look;
} Doctor;

static void
json_member(EqBuf *json, const char *name, const char *value)
{
	eq_buf_json_string(json, name);
	eq_buf_string(json, ": ");
	if (value == NULL)
		eq_buf_string(json, "null");
	else
		eq_buf_json_string(json, value);
}

/* A hint is a repair if it is a statement. */
static bool
is_statement(const char *text)
{
	static const char *const words[] = {"SELECT ",	"ALTER ",  "CREATE ",
										"REINDEX ", "VACUUM ", "ROLLBACK "};

	for (int i = 0; text && i < lengthof(words); i++)
	{
		if (strncmp(text, words[i], strlen(words[i])) == 0)
			return true;
	}
	return false;
}

/* Is a repair of this area one that psql may run unseen?  It ends no session and drops no slot. */
static bool
is_harmless(const char *area)
{
	static const char *const areas[] = {"catalog", "functions", "triggers",
										"indexes", "partitions"};

	for (int i = 0; i < lengthof(areas); i++)
	{
		if (strcmp(area, areas[i]) == 0)
			return true;
	}
	return false;
}

/* One finding; level ok is one line without a repair. */
static void
report(Doctor *doctor, const char *level, const char *area, const char *item,
	   const char *detail, const char *repair)
{
	EqCli *cli = doctor->cli;
	EqBuf line;

	doctor->errors += strcmp(level, "error") == 0;
	doctor->warnings += strcmp(level, "warning") == 0;
	if (only_sql && strcmp(level, "ok") == 0)
		return;
	eq_buf_init(&line);
	if (only_sql)
	{
		eq_buf_printf(&line, "-- %s %s: %s", area, item, detail);
		eq_print_line(cli, line.data);
		eq_buf_reset(&line);
		eq_buf_printf(&line, "%s%s%s",
					  is_harmless(area) && is_statement(repair) ? "" : "-- ",
					  repair ? repair : "", is_statement(repair) ? ";" : "");
		if (repair)
			eq_print_line(cli, line.data);
		eq_buf_free(&line);
		return;
	}
	if (cli->format == EQ_FORMAT_TABLE)
	{
		const char *color = strcmp(level, "error") == 0 ? "31"
							: strcmp(level, "ok") == 0	? "32"
														: "33";

		if (cli->color)
			printf("\033[%sm%-8s\033[0m", color, level);
		else
			printf("%-8s", level);
		eq_buf_printf(&line, "%-10s %s%s%s", area, item,
					  item[0] && detail[0] ? ": " : "", detail);
		eq_print_line(cli, line.data);
		if (repair)
		{
			eq_buf_reset(&line);
			eq_buf_printf(&line, "%19s%s%s", "", repair,
						  is_statement(repair) ? ";" : "");
			eq_print_line(cli, line.data);
		}
	}
	else if (cli->format == EQ_FORMAT_CSV)
	{
		if (doctor->rows == 0 && !cli->quiet)
			puts("level,area,item,detail,repair");
		eq_print_csv_value(level, false);
		putchar(',');
		eq_print_csv_value(area, false);
		putchar(',');
		eq_print_csv_value(item, false);
		putchar(',');
		eq_print_csv_value(detail, false);
		putchar(',');
		eq_print_csv_value(repair ? repair : "", repair == NULL);
		putchar('\n');
	}
	else
	{
		eq_buf_char(&line, '{');
		json_member(&line, "level", level);
		eq_buf_string(&line, ", ");
		json_member(&line, "area", area);
		eq_buf_string(&line, ", ");
		json_member(&line, "item", item);
		eq_buf_string(&line, ", ");
		json_member(&line, "detail", detail);
		eq_buf_string(&line, ", ");
		json_member(&line, "repair", repair);
		eq_buf_char(&line, '}');
		if (cli->format == EQ_FORMAT_JSON)
			printf("%s%s", doctor->rows == 0 ? "[\n" : ",\n", line.data);
		else
			puts(line.data);
	}
	doctor->rows++;
	eq_buf_free(&line);
}

static const char *
value_or_null(const PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? NULL : PQgetvalue(result, row, column);
}

/* Without the program's own message: an error of one check is a finding. */
static PGresult *
ask(Doctor *doctor, const char *area, const char *sql, int n_params,
	const char *const *params)
{
	PGresult *result = PQexecParams(doctor->cli->conn, sql, n_params, NULL, params,
									NULL, NULL, 0);

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	report(doctor, "error", area, "could not look",
		   PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)
			   ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)
			   : PQerrorMessage(doctor->cli->conn),
		   PQresultErrorField(result, PG_DIAG_MESSAGE_HINT));
	PQclear(result);
	doctor->could_not_look = true;
	return NULL;
}

static void
run_check(Doctor *doctor, const char *area, const char *sql, int n_params,
		  const char *const *params)
{
	PGresult *result = ask(doctor, area, sql, n_params, params);

	if (result == NULL)
		return;
	for (int row = 0; row < PQntuples(result); row++)
		report(doctor, PQgetvalue(result, row, 0), area, PQgetvalue(result, row, 1),
			   PQgetvalue(result, row, 2), value_or_null(result, row, 3));
	if (PQntuples(result) == 0)
		report(doctor, "ok", area, "", "", NULL);
	PQclear(result);
}

/* Library, extension and program.  False: nothing else can be asked. */
static bool
check_versions(Doctor *doctor, bool *same)
{
	PGresult *result = ask(
		doctor, "version",
		"SELECT e.extversion, EXISTS (SELECT FROM pg_settings WHERE name = 'event_queue.executors' "
		"AND context <> 'user'), (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries') "
		"FROM (SELECT) x LEFT JOIN pg_extension e ON e.extname = 'event_queue'",
		0, NULL);
	char detail[300];
	const char *version, *libraries;
	bool loaded;

	if (result == NULL)
		return false;
	version = value_or_null(result, 0, 0);
	loaded = eq_is_true(result, 0, 1);
	libraries = value_or_null(result, 0, 2);
	if (!loaded)
	{
		EqBuf repair;

		eq_buf_init(&repair);
		eq_buf_printf(
			&repair,
			"ALTER SYSTEM SET shared_preload_libraries = %s%sevent_queue; -- and restart the server",
			libraries ? libraries : "", libraries && libraries[0] ? ", " : "");
		report(doctor, "error", "preload", "shared_preload_libraries",
			   "the library event_queue is not loaded", repair.data);
		eq_buf_free(&repair);
	}
	if (version == NULL)
		report(doctor, "error", "version", "extension", "not in this database",
			   "CREATE EXTENSION event_queue");
	if (!loaded || version == NULL)
	{
		PQclear(result);
		return false;
	}
	report(doctor, "ok", "preload", "", "", NULL);
	*same = strcmp(version, EQ_VERSION) == 0;
	if (!*same)
	{
		snprintf(detail, sizeof(detail),
				 "%s, this program is of " EQ_VERSION
				 ": the catalog is not compared",
				 version);
		report(doctor, "warning", "version", "extension", detail,
			   "ALTER EXTENSION event_queue UPDATE");
	}
	PQclear(result);
	result = ask(
		doctor, "version",
		"SELECT event_queue.version(), extversion FROM pg_extension WHERE extname = 'event_queue'",
		0, NULL);
	if (result == NULL)
		return false;
	if (strcmp(PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1)) != 0)
	{
		snprintf(detail, sizeof(detail),
				 "is of %s, the extension in this database of %s",
				 PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1));
		report(
			doctor, "error", "version", "library", detail,
			"ALTER EXTENSION event_queue UPDATE; -- or restart the server, if the library is the older one");
	}
	else if (*same)
		report(doctor, "ok", "version", "", PQgetvalue(result, 0, 0), NULL);
	PQclear(result);
	return true;
}

static void
check_catalog(Doctor *doctor)
{
	EqBuf expected;
	const char *params[1];
	PGresult *result;

	eq_buf_init(&expected);
	eq_doctor_expected(&expected);
	params[0] = expected.data;
	result = ask(doctor, "catalog", eq_doctor_catalog_sql, 1, params);
	for (int row = 0; result && row < PQntuples(result); row++)
	{
		const char *kind = PQgetvalue(result, row, 1),
				   *name = PQgetvalue(result, row, 3);
		const char *repair = eq_doctor_repair(atoi(PQgetvalue(result, row, 0)));
		char detail[300];

		if (strcmp(kind, "always") == 0)
			snprintf(detail, sizeof(detail), "trigger %s does not fire always",
					 name);
		else if (strcmp(kind, "row security") == 0)
			snprintf(detail, sizeof(detail), "row security is off");
		else
			snprintf(detail, sizeof(detail), "%s %s%sis missing", kind, name,
					 name[0] ? " " : "");
		report(doctor, "error", "catalog", PQgetvalue(result, row, 2), detail,
			   repair[0] ? repair : NULL);
	}
	if (result && PQntuples(result) == 0)
		report(doctor, "ok", "catalog", "", "", NULL);
	PQclear(result);
	run_check(doctor, "functions", eq_doctor_functions_sql, 1, params);
	eq_buf_free(&expected);
}

int
eq_cmd_doctor(EqCli *cli, int argc, char **argv)
{
	Doctor doctor;
	bool same = false, can_go_on;

	memset(&doctor, 0, sizeof(doctor));
	doctor.cli = cli;
	/* A table that is locked must not hold the doctor up. */
	if (eq_do(
			cli,
			"SELECT set_config('lock_timeout', '2s', false), set_config('statement_timeout', '1min', false)",
			0, NULL) != EQ_EXIT_OK)
		return EQ_EXIT_ERROR;
	if (only_sql)
	{
		puts("SET search_path = event_queue, pg_catalog;");
		puts("SET allow_system_table_mods = on;	-- else EQ057");
	}
	can_go_on = check_versions(&doctor, &same);
	if (can_go_on)
	{
		if (same)
			check_catalog(&doctor);
		for (const DoctorCheck *check = eq_doctor_checks; check->area; check++)
			run_check(&doctor, check->area, check->sql, 0, NULL);
	}
	if (cli->format == EQ_FORMAT_JSON && !only_sql)
		puts(doctor.rows > 0 ? "\n]" : "[]");
	if (!only_sql)
		eq_say(cli, "%d errors, %d warnings", doctor.errors, doctor.warnings);
	if (doctor.errors > 0 || (strict && doctor.warnings > 0))
		return doctor.could_not_look && !can_go_on ? EQ_EXIT_ERROR
												   : EQ_EXIT_UNHEALTHY;
	return EQ_EXIT_OK;
}
