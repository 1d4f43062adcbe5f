/*
 * eventq.c: the program: finds the verb, parses its options, runs it.
 */
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eventq.h"

#ifndef HAVE_LIBEVENT
int
eq_cmd_serve(EqCli *cli, int argc, char **argv)
{
	eq_error(cli, "serve is not in this build: libevent was missing");
	return EQ_EXIT_ERROR;
}

const EqOption eq_serve_options[] = {{NULL}};
#endif

#ifndef HAVE_NCURSES
int
eq_cmd_top(EqCli *cli, int argc, char **argv)
{
	eq_error(cli, "top is not in this build: ncurses was missing");
	return EQ_EXIT_ERROR;
}

const EqOption eq_top_options[] = {{NULL}};
#endif

#ifndef HAVE_LIBCURL
static int
eq_cmd_webhook(EqCli *cli, int argc, char **argv)
{
	eq_error(cli, "webhook is not in this build: libcurl was missing");
	return EQ_EXIT_ERROR;
}

static const EqOption eq_webhook_options[] = {{NULL}};
#endif

static int
cmd_metrics(EqCli *cli, int argc, char **argv)
{
	PGresult *result = eq_query(cli, "SELECT event_queue.prometheus()", 0, NULL);

	if (result == NULL)
		return EQ_EXIT_ERROR;
	for (int row = 0; row < PQntuples(result); row++)
		eq_print_text(PQgetvalue(result, row, 0));
	PQclear(result);
	return EQ_EXIT_OK;
}

const EqCommand eq_other_commands[] = {
	{"top", NULL, eq_cmd_top, 0, 0, "", "Shows queues and jobs live", eq_top_options,
	 0},
	{"work", NULL, eq_cmd_work, 2, -1, "QUEUE -- COMMAND [ARGUMENT]...",
	 "Runs a program for each job of a queue", eq_work_options, EQ_TAKES_COMMAND},
	{"webhook", NULL, eq_cmd_webhook, 1, 1, "QUEUE",
	 "Sends the jobs of a queue by HTTP, signed", eq_webhook_options, 0},
	{"doctor", NULL, eq_cmd_doctor, 0, 0, "",
	 "Compares what should be there with what is there, and prints the SQL that repairs",
	 eq_doctor_options, 0},
	{"metrics", NULL, cmd_metrics, 0, 0, "",
	 "Prints the metrics in Prometheus' text format", NULL, 0},
	{"serve", NULL, eq_cmd_serve, 0, 0, "",
	 "Serves the dashboard, metrics and health by HTTP", eq_serve_options, 0},
	{"completion", NULL, eq_cmd_completion, 0, 1, "[bash]",
	 "Prints a script that completes verbs, options and names of queues", NULL, 0},
	{NULL}};

/* In the order of the help. */
const EqCommand *const eq_nouns[] = {eq_queue_commands,		   eq_job_commands,
									 eq_dead_commands,		   eq_event_commands,
									 eq_rule_commands,		   eq_schedule_commands,
									 eq_subscription_commands, eq_health_commands,
									 eq_other_commands,		   NULL};

static void
print_help(const char *program)
{
	printf("eventq: queues, jobs, events and rules of the extension event_queue\n\n"
		   "Usage: %s [OPTION]... NOUN VERB [ARGUMENT]... [OPTION]...\n\n",
		   program);
	for (int i = 0; eq_nouns[i]; i++)
	{
		for (const EqCommand *command = eq_nouns[i]; command->noun; command++)
		{
			char left[80];

			snprintf(left, sizeof(left), "%s%s%s%s%s", command->noun,
					 command->verb ? " " : "", command->verb ? command->verb : "",
					 command->arguments[0] ? " " : "", command->arguments);
			if (strlen(left) > 34)
				printf("  %s\n  %-34s %s\n", left, "", command->help);
			else
				printf("  %-34s %s\n", left, command->help);
		}
	}
	printf("\n\"%s NOUN VERB --help\" has the options of a verb.\n\n", program);
	eq_help_common(stdout);
	puts("\nExit status: 0 ok, 1 error, 2 wrong usage, 3 unhealthy.");
}

/*
 * The command that argv names; *used: how many words it has.  NULL: none, which has been
 * said.
 */
static const EqCommand *
find_command(EqCli *cli, int argc, char **argv, int *used)
{
	bool known_noun = false;

	for (int i = 0; eq_nouns[i]; i++)
	{
		for (const EqCommand *command = eq_nouns[i]; command->noun; command++)
		{
			if (strcmp(command->noun, argv[0]) != 0)
				continue;
			known_noun = true;
			*used = command->verb ? 2 : 1;
			if (command->verb == NULL ||
				(argc > 1 && strcmp(command->verb, argv[1]) == 0))
				return command;
		}
	}
	if (!known_noun)
		eq_error(cli, "unknown command \"%s\"", argv[0]);
	else if (argc < 2)
		eq_error(cli, "%s needs a verb", argv[0]);
	else
		eq_error(cli, "%s has no verb \"%s\"", argv[0], argv[1]);
	if (known_noun)
	{
		fprintf(stderr, "It has:");
		for (int i = 0; eq_nouns[i]; i++)
		{
			for (const EqCommand *command = eq_nouns[i]; command->noun; command++)
			{
				if (strcmp(command->noun, argv[0]) == 0 && command->verb)
					fprintf(stderr, " %s", command->verb);
			}
		}
		fprintf(stderr, "\n");
	}
	else
		fprintf(stderr, "Try \"%s --help\".\n", cli->program);
	return NULL;
}

/*
 * Takes the places of standard streams that are closed: the connection would get the
 * first free one, and what is printed would go to the server.  Writing there fails.
 */
static void
open_standard_streams(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
	{
		if (fcntl(fd, F_GETFD) == -1 &&
			open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			exit(EQ_EXIT_ERROR);
	}
}

int
main(int argc, char **argv)
{
	EqCli cli;
	const EqCommand *command;
	int rest, used, status;
	char **words;
	int n_words;

	open_standard_streams();
	setlocale(LC_ALL, "");
	setlocale(LC_NUMERIC, "C");
	signal(SIGPIPE, SIG_IGN);
	memset(&cli, 0, sizeof(cli));
	cli.program = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	cli.color = isatty(STDOUT_FILENO) &&
				(getenv("NO_COLOR") == NULL || !*getenv("NO_COLOR")) &&
				strcmp(getenv("TERM") ? getenv("TERM") : "dumb", "dumb") != 0;
	cli.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	/* No locale is set: data pass as they are, what is ours is ASCII. */
	if (strcmp(setlocale(LC_CTYPE, NULL), "C") == 0 ||
		strcmp(setlocale(LC_CTYPE, NULL), "POSIX") == 0)
		eq_use_utf8();

	if (!eq_parse_common(&cli, argc, argv, &rest))
		return EQ_EXIT_USAGE;
	if (rest == -1)
	{
		print_help(cli.program);
		return eq_flush(&cli) ? EQ_EXIT_OK : EQ_EXIT_ERROR;
	}
	if (rest == argc)
	{
		eq_error(&cli, "no command given");
		fprintf(stderr, "Try \"%s --help\".\n", cli.program);
		return EQ_EXIT_USAGE;
	}
	command = find_command(&cli, argc - rest, argv + rest, &used);
	if (command == NULL)
		return EQ_EXIT_USAGE;
	/* getopt takes the first word for the program's name: its messages begin with it. */
	words = argv + rest + used - 1;
	n_words = argc - rest - used + 1;
	words[0] = (char *) cli.program;
	if (!eq_parse_command(&cli, command, n_words, words, &rest))
		return EQ_EXIT_USAGE;
	if (rest == -1)
		return eq_flush(&cli) ? EQ_EXIT_OK : EQ_EXIT_ERROR;
	if (n_words - rest < command->min_args ||
		(command->max_args >= 0 && n_words - rest > command->max_args))
	{
		eq_error(&cli, "usage: %s %s%s%s %s", cli.program, command->noun,
				 command->verb ? " " : "", command->verb ? command->verb : "",
				 command->arguments);
		return EQ_EXIT_USAGE;
	}
	status = command->run(&cli, n_words - rest, words + rest);
	eq_disconnect(&cli);
	if (!eq_flush(&cli) && status == EQ_EXIT_OK)
		status = EQ_EXIT_ERROR;
	return status;
}
