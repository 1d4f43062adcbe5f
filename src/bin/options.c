/*
 * options.c: options before and behind the verb, and the help that lists them.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eventq.h"

#define COMMON_LETTERS "d:h:p:U:wo:q"

enum
{
	OPT_NO_COLOR = 1000,
	OPT_ASCII,
	OPT_WATCH,
	OPT_DRY_RUN,
	OPT_YES,
	OPT_ALL,
	OPT_HELP,
	OPT_VERSION,
	OPT_OF_COMMAND /* and those above: options of the verb */
};

static const struct option common_options[] = {
	{"dbname", required_argument, NULL, 'd'},
	{"host", required_argument, NULL, 'h'},
	{"port", required_argument, NULL, 'p'},
	{"username", required_argument, NULL, 'U'},
	{"no-password", no_argument, NULL, 'w'},
	{"output", required_argument, NULL, 'o'},
	{"quiet", no_argument, NULL, 'q'},
	{"no-color", no_argument, NULL, OPT_NO_COLOR},
	{"ascii", no_argument, NULL, OPT_ASCII},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
};

static const struct
{
	int takes;
	struct option option;
	const char *help;
} shared_options[] = {
	{EQ_TAKES_WATCH,
	 {"watch", required_argument, NULL, OPT_WATCH},
	 "look again each so many seconds"},
	{EQ_TAKES_DRY_RUN,
	 {"dry-run", no_argument, NULL, OPT_DRY_RUN},
	 "print how many it would be, change nothing"},
	{EQ_TAKES_YES,
	 {"yes", no_argument, NULL, OPT_YES},
	 "do it without being asked again"},
	{EQ_TAKES_ALL,
	 {"all", no_argument, NULL, OPT_ALL},
	 "all of them, where no filter is given"},
};

void
eq_help_common(FILE *out)
{
	fputs("Connection, as in psql (also PGHOST, PGSERVICE, ~/.pgpass, ...):\n"
		  "  -d, --dbname=NAME      database, URI or key=value pairs\n"
		  "  -h, --host=HOST        host or directory of the socket\n"
		  "  -p, --port=PORT\n"
		  "  -U, --username=ROLE\n"
		  "  -w, --no-password      never ask for a password\n"
		  "Output:\n"
		  "  -o, --output=FORMAT    table (default), json, jsonl or csv\n"
		  "  -q, --quiet            no heading, no message\n"
		  "      --no-color         as NO_COLOR=1; piped output never has colour\n"
		  "      --ascii            no character outside of ASCII but in data\n"
		  "      --help, --version\n",
		  out);
}

void
eq_help_command(FILE *out, const char *program, const EqCommand *command)
{
	fprintf(out, "Usage: %s %s%s%s [OPTION]...%s%s\n\n%s.\n", program, command->noun,
			command->verb ? " " : "", command->verb ? command->verb : "",
			command->arguments[0] ? " " : "", command->arguments, command->help);
	if (command->options || command->takes & ~EQ_TAKES_COMMAND)
		fputs("\nOptions:\n", out);
	for (const EqOption *option = command->options; option && option->name; option++)
	{
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", option->name,
				 option->value ? "=" : "", option->value ? option->value : "");
		fprintf(out, "  %-24s %s\n", left, option->help);
	}
	for (int i = 0; i < lengthof(shared_options); i++)
	{
		char left[64];

		if (!(command->takes & shared_options[i].takes))
			continue;
		snprintf(left, sizeof(left), "--%s%s", shared_options[i].option.name,
				 shared_options[i].option.has_arg ? "=SECONDS" : "");
		fprintf(out, "  %-24s %s\n", left, shared_options[i].help);
	}
	fputs("\n", out);
	eq_help_common(out);
}

/* All options of a verb, as words of a shell: for completion. */
void
eq_list_options(FILE *out, const EqCommand *command)
{
	for (const EqOption *option = command->options; option && option->name; option++)
		fprintf(out, "--%s%s ", option->name, option->value ? "=" : "");
	for (int i = 0; i < lengthof(shared_options); i++)
	{
		if (command->takes & shared_options[i].takes)
			fprintf(out, "--%s%s ", shared_options[i].option.name,
					shared_options[i].option.has_arg ? "=" : "");
	}
	for (int i = 0; i < lengthof(common_options); i++)
		fprintf(out, "--%s%s ", common_options[i].name,
				common_options[i].has_arg ? "=" : "");
}

/* "2", "0.5", "2s", "500ms", "5m" or "1h" in seconds; false unless above 0. */
bool
eq_parse_seconds(const char *text, double *seconds)
{
	char *end;
	double number;

	errno = 0;
	number = strtod(text, &end);
	if (end == text || errno != 0)
		return false;
	if (strcmp(end, "ms") == 0)
		number /= 1000;
	else if (strcmp(end, "m") == 0 || strcmp(end, "min") == 0)
		number *= 60;
	else if (strcmp(end, "h") == 0)
		number *= 3600;
	else if (*end != '\0' && strcmp(end, "s") != 0)
		return false;
	if (!(number > 0 && number <= 86400 * 7))
		return false;
	*seconds = number;
	return true;
}

bool
eq_parse_number(const char *text, long min, long max, long *number)
{
	char *end;

	errno = 0;
	*number = strtol(text, &end, 10);
	return end != text && *end == '\0' && errno == 0 && *number >= min &&
		   *number <= max;
}

static bool
parse_format(EqCli *cli, const char *text)
{
	static const char *const names[] = {"table", "json", "jsonl", "csv"};

	for (int i = 0; i < lengthof(names); i++)
	{
		if (strcmp(text, names[i]) == 0)
		{
			cli->format = (EqFormat) i;
			return true;
		}
	}
	eq_error(cli, "unknown output format \"%s\": table, json, jsonl or csv", text);
	return false;
}

/* False: what was typed is wrong, and has been said. */
static bool
apply_option(EqCli *cli, const EqCommand *command, int letter)
{
	switch (letter)
	{
		case 'd':
			cli->dbname = optarg;
			break;
		case 'h':
			cli->host = optarg;
			break;
		case 'p':
			cli->port = optarg;
			break;
		case 'U':
			cli->user = optarg;
			break;
		case 'w':
			cli->no_password = true;
			break;
		case 'o':
			return parse_format(cli, optarg);
		case 'q':
			cli->quiet = true;
			break;
		case OPT_NO_COLOR:
			cli->color = false;
			break;
		case OPT_ASCII:
			cli->utf8 = false;
			break;
		case OPT_WATCH:
			if (eq_parse_seconds(optarg, &cli->watch) && cli->watch >= 0.1)
				break;
			eq_error(cli, "--watch takes seconds, at least 0.1");
			return false;
		case OPT_DRY_RUN:
			cli->dry_run = true;
			break;
		case OPT_YES:
			cli->yes = true;
			break;
		case OPT_ALL:
			cli->all = true;
			break;
		case OPT_VERSION:
			puts("eventq " EQ_VERSION);
			exit(eq_flush(cli) ? EQ_EXIT_OK : EQ_EXIT_ERROR);
		default:
			if (letter >= OPT_OF_COMMAND)
			{
				const EqOption *option = &command->options[letter - OPT_OF_COMMAND];

				if (option->value)
					*option->string = optarg;
				else
					*option->flag = true;
				break;
			}
			/* getopt_long has said what is wrong */
			fprintf(stderr, "Try \"%s --help\".\n", cli->program);
			return false;
	}
	return true;
}

/*
 * Options in front of the noun.  *rest: index of what is no option.
 */
bool
eq_parse_common(EqCli *cli, int argc, char **argv, int *rest)
{
	struct option options[lengthof(common_options) + 1];
	int letter;

	memcpy(options, common_options, sizeof(common_options));
	memset(&options[lengthof(common_options)], 0, sizeof(options[0]));
	optind = 1;
	while ((letter = getopt_long(argc, argv, "+" COMMON_LETTERS, options, NULL)) !=
		   -1)
	{
		if (letter == OPT_HELP)
		{
			*rest = -1;
			return true;
		}
		if (!apply_option(cli, NULL, letter))
			return false;
	}
	*rest = optind;
	return true;
}

/*
 * Options behind the verb: the common ones and its own, also between and behind its
 * arguments.  *rest: index of the first argument; -1: help was printed.
 */
bool
eq_parse_command(EqCli *cli, const EqCommand *command, int argc, char **argv,
				 int *rest)
{
	int n_options = 0, n = 0, letter;
	struct option *options;

	while (command->options && command->options[n_options].name)
		n_options++;
	options = eq_alloc(
		sizeof(struct option) *
		(lengthof(common_options) + lengthof(shared_options) + n_options + 1));
	memcpy(options, common_options, sizeof(common_options));
	n = lengthof(common_options);
	for (int i = 0; i < lengthof(shared_options); i++)
	{
		if (command->takes & shared_options[i].takes)
			options[n++] = shared_options[i].option;
	}
	for (int i = 0; i < n_options; i++)
	{
		options[n].name = command->options[i].name;
		options[n].has_arg = command->options[i].value ? required_argument
													   : no_argument;
		options[n++].val = OPT_OF_COMMAND + i;
	}
	optind = 0; /* begins anew, also with its permutation */
	while ((letter = getopt_long(argc, argv, COMMON_LETTERS, options, NULL)) != -1)
	{
		if (letter == OPT_HELP)
		{
			eq_help_command(stdout, cli->program, command);
			*rest = -1;
			free(options);
			return true;
		}
		if (!apply_option(cli, command, letter))
		{
			free(options);
			return false;
		}
	}
	free(options);
	*rest = optind;
	return true;
}
