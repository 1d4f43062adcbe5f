/*
 * do.c: runs statements that change something, and prints what they did.
 */
#include <string.h>

#include "eventq.h"

/* Runs a statement; its result is not shown. */
int
eq_do(EqCli *cli, const char *sql, int n_params, const char *const *params)
{
	PGresult *result = eq_query(cli, sql, n_params, params);

	PQclear(result);
	return result ? EQ_EXIT_OK : EQ_EXIT_ERROR;
}

/* A statement that returns how many: a line for people, else {"count": N}. */
int
eq_do_count(EqCli *cli, const char *sql, int n_params, const char *const *params,
			const char *what)
{
	PGresult *result = eq_query(cli, sql, n_params, params);

	if (result == NULL)
		return EQ_EXIT_ERROR;
	if (cli->format == EQ_FORMAT_TABLE)
		eq_say(cli, "%s %s", PQgetvalue(result, 0, 0), what);
	else
		eq_print_result(cli, result);
	PQclear(result);
	return EQ_EXIT_OK;
}

/*
 * A function of one argument for each argument; goes on after an error.  It returns true
 * (done), false (not_done), or with not_done NULL a value that is printed.
 */
int
eq_do_each(EqCli *cli, int argc, char **argv, const char *sql, const char *done,
		   const char *not_done)
{
	int status = EQ_EXIT_OK;

	for (int i = 0; i < argc; i++)
	{
		const char *params[1] = {argv[i]};
		PGresult *result = eq_query(cli, sql, 1, params);
		const char *value;

		if (result == NULL)
		{
			status = EQ_EXIT_ERROR;
			if (cli->conn == NULL)
				break;
			continue;
		}
		value = PQgetvalue(result, 0, 0);
		if (not_done == NULL)
			eq_say(cli, "%s: %s%s", argv[i], done, value);
		else
			eq_say(cli, "%s: %s", argv[i],
				   eq_is_true(result, 0, 0) ? done : not_done);
		PQclear(result);
	}
	return status;
}

/*
 * May a verb go on that acts on many?  It needs a filter or --all, and if it deletes,
 * --yes or --dry-run.  False: what is missing has been said.
 */
bool
eq_may_do_many(EqCli *cli, bool has_filter, bool deletes)
{
	if (!has_filter && !cli->all)
	{
		eq_usage(cli, "give job ids, a filter, or --all");
		return false;
	}
	if (deletes && !cli->yes && !cli->dry_run)
	{
		eq_usage(cli,
				 "this deletes for good: give --yes, or --dry-run for their number");
		return false;
	}
	return true;
}
