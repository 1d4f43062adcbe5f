/*
 * completion.c: completion for bash, generated from the tables of verbs.
 */
#include <string.h>

#include "eventq.h"

/*
 * Names of queues are anybody's: they are read and quoted, and the shell never expands them
 * (which compgen -W does).
 */
static const char queues[] =
	"_eventq_queues() {\n"
	"\tlocal line name quoted\n"
	"\twhile IFS= read -r line; do\n"
	"\t\tname=${line%%,*}\n"
	"\t\tif [[ $line == \\\"* ]]; then\n"
	"\t\t\tname=${line//\\\"\\\"/$'\\1'} name=${name#?} name=${name%%\\\"*} "
	"name=${name//$'\\1'/\\\"}\n"
	"\t\tfi\n"
	"\t\tprintf -v quoted %q \"$name\"\n"
	"\t\t[[ $name != \"$cur\"* && $quoted != \"$cur\"* ]] || COMPREPLY+=(\"$quoted\")\n"
	"\tdone < <(eventq queue ls -w -q -o csv 2>/dev/null)\n"
	"}";

/* Words that stand at the same place, each once. */
static void
print_verbs(const char *noun)
{
	for (int i = 0; eq_nouns[i]; i++)
	{
		for (const EqCommand *command = eq_nouns[i]; command->noun; command++)
		{
			if (command->verb && strcmp(command->noun, noun) == 0)
				printf("%s ", command->verb);
		}
	}
}

static void
print_nouns(void)
{
	for (int i = 0; eq_nouns[i]; i++)
	{
		for (const EqCommand *command = eq_nouns[i]; command->noun; command++)
		{
			if (command == eq_nouns[i] ||
				strcmp(command->noun, command[-1].noun) != 0)
				printf("%s ", command->noun);
		}
	}
}

int
eq_cmd_completion(EqCli *cli, int argc, char **argv)
{
	if (argc > 0 && strcmp(argv[0], "bash") != 0)
		return eq_usage(cli, "only bash is supported");
	puts("# bash completion for eventq; made by: eventq completion bash");
	puts(queues);
	puts(
		"_eventq() {\n"
		"\tlocal cur=${COMP_WORDS[COMP_CWORD]} words=() word skip= noun= verb= choices= i\n"
		"\tCOMPREPLY=()\n"
		"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
		"\t\tword=${COMP_WORDS[i]}\n"
		"\t\tif [ -n \"$skip\" ]; then skip=; continue; fi\n"
		"\t\tcase $word in\n"
		"\t\t--) return ;;\n"
		"\t\t-d | -h | -p | -U | -o) skip=1 ;;\n"
		"\t\t-*) ;;\n"
		"\t\t*) words+=(\"$word\") ;;\n"
		"\t\tesac\n"
		"\tdone\n"
		"\tnoun=${words[0]} verb=${words[1]}\n"
		"\tcase ${COMP_WORDS[COMP_CWORD - 1]} in\n"
		"\t-o | --output) COMPREPLY=($(compgen -W 'table json jsonl csv' -- \"$cur\")); return ;;\n"
		"\tesac\n"
		"\tcase $noun in");
	printf("\t'') choices='");
	print_nouns();
	puts("' ;;");
	for (int i = 0; eq_nouns[i]; i++)
	{
		for (const EqCommand *command = eq_nouns[i]; command->noun; command++)
		{
			bool first = command == eq_nouns[i] ||
						 strcmp(command->noun, command[-1].noun) != 0;
			bool last = command[1].noun == NULL ||
						strcmp(command->noun, command[1].noun) != 0;

			if (first)
				printf("\t%s)\n\t\tcase $verb in\n", command->noun);
			if (first && command->verb)
			{
				fputs("\t\t'') choices='", stdout);
				print_verbs(command->noun);
				puts("' ;;");
			}
			printf("\t\t%s) choices='", command->verb ? command->verb : "*");
			eq_list_options(stdout, command);
			puts("'");
			if (strstr(command->arguments, "QUEUE"))
				puts("\t\t\t[[ $cur == -* ]] || { _eventq_queues; return; }");
			puts("\t\t\t;;");
			if (last)
				puts("\t\tesac ;;");
		}
	}
	puts("\tesac\n"
		 "\tCOMPREPLY=($(compgen -W \"$choices\" -- \"$cur\"))\n"
		 "\t[[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace\n"
		 "}\n"
		 "complete -F _eventq eventq");
	return EQ_EXIT_OK;
}
