/*
 * work.c: "eventq work": runs any program as a worker.
 *
 * One process with one poll() loop: the connection (work_server.c), the pipes of the
 * children (work_child.c), and a pipe that the signal handlers write to.  It never blocks
 * on a statement, so a server that does not answer keeps no child alive beyond its lease.
 *
 * Guarantees:
 * - a job is completed only after its child has exited with 0, and its slot is free only
 *   after the server has confirmed that, over any number of connections; then the job is
 *   never run again;
 * - a child never outlives its lease: the end is counted from before the claim or renewal
 *   was sent.  It also dies with this process (Linux);
 * - SIGTERM stops claiming; children may end within --grace, after that they are stopped
 *   and their jobs released, which is not counted as an attempt.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "webhook.h"
#include "work.h"

static const char *concurrency, *lease, *job_names, *tenant, *worker, *grace, *later,
	*look, *max_jobs;
static bool session_bound, until_empty;

/* clang-format's versions do not agree on such a macro. */
/* clang-format off */
#define WORK_OPTIONS                                                                \
	{"concurrency", "N", &concurrency, NULL, "so many jobs at a time (default 1)"}, \
		{"session", NULL, NULL, &session_bound, "leases end with the connection"},  \
		{"lease", "INTERVAL", &lease, NULL,                                         \
		 "instead of the queue's; renewed at a third of it"},                       \
		{"grace", "SECONDS", &grace, NULL,                                          \
		 "for children after SIGTERM (default 30)"},                                \
		{"later", "INTERVAL", &later, NULL,                                         \
		 "delay of jobs that end with status 75 (default 10 seconds)"},             \
		{"job-names", "NAME,...", &job_names, NULL, "only jobs of these names"},    \
		{"tenant", "TENANT", &tenant, NULL, "only jobs of this tenant"},            \
		{"worker", "NAME", &worker, NULL,                                           \
		 "who holds the lease (default eventq@HOST:PID)"},                          \
		{"max-jobs", "N", &max_jobs, NULL, "end after so many jobs"},               \
		{"until-empty", NULL, NULL, &until_empty,                                   \
		 "end when there is no job to claim"},                                      \
	{                                                                               \
		"look", "SECONDS", &look, NULL,                                             \
			"between claims when nothing wakes us (default 10)"                     \
	}

/* clang-format on */
const EqOption eq_work_options[] = {WORK_OPTIONS, {NULL}};

#ifdef HAVE_LIBCURL
const EqOption eq_webhook_options[] = {WORK_OPTIONS, EQ_WEBHOOK_OPTIONS, {NULL}};
#endif

/* Seconds for telling the server how jobs ended, after the grace */
#define LAST_WORDS 10

static int signal_pipe[2];
static volatile sig_atomic_t stop_signals = 0;

static void
on_signal(int number)
{
	int saved = errno;

	if (number != SIGCHLD)
		stop_signals++;
	if (write(signal_pipe[1], "", 1) < 0)
	{
		/* full: it wakes us as well */
	}
	errno = saved;
}

double
eq_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

/* One line on stderr, with the time; not with -q. */
void
eq_work_log(Work *work, const char *fmt, ...)
{
	char line[2048], stamp[32];
	time_t now = time(NULL);
	struct tm broken;
	va_list args;

	if (work->cli->quiet)
		return;
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	line[strcspn(line, "\n")] = '\0';
	/* What a child has said last may be in it: no control character reaches a terminal. */
	for (unsigned char *p = (unsigned char *) line; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = ' ';
	localtime_r(&now, &broken);
	strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &broken);
	fprintf(stderr, "%s %s: ", stamp, work->cli->program);
	eq_put_text(stderr, line);
	fputc('\n', stderr);
}

/* Claims no more; ends when the slots are free.  The first exit code that is an error stays. */
void
eq_work_stop(Work *work, int exit_code)
{
	if (work->exit_code == EQ_EXIT_OK)
		work->exit_code = exit_code;
	if (work->stopping != 0)
		return;
	work->stopping = eq_now();
	work->grace_ends = work->stopping + work->grace;
}

int
eq_work_free_slots(const Work *work)
{
	int n = 0;

	for (int i = 0; i < work->n_slots; i++)
		n += work->slots[i].state == SLOT_FREE;
	return n;
}

/* False: what was typed is wrong. */
static bool
read_options(Work *work)
{
	long number = 1;

	if (concurrency && !eq_parse_number(concurrency, 1, 1000, &number))
		return !eq_usage(work->cli, "--concurrency takes a number from 1 to 1000");
	work->n_slots = (int) number;
	if (max_jobs && !eq_parse_number(max_jobs, 1, 1000000000, &work->max_jobs))
		return !eq_usage(work->cli, "--max-jobs takes a number above 0");
	work->grace = 30;
	if (grace && strcmp(grace, "0") == 0)
		work->grace = 0;
	else if (grace && !eq_parse_seconds(grace, &work->grace))
		return !eq_usage(work->cli, "--grace takes seconds");
	work->look = 10;
	if (look && !eq_parse_seconds(look, &work->look))
		return !eq_usage(work->cli, "--look takes seconds, above 0");
	work->lease = lease;
	work->later_delay = later ? later : "10 seconds";
	work->job_names = job_names;
	work->tenant = tenant;
	work->session_bound = session_bound;
	work->until_empty = until_empty;
	if (worker && strlen(worker) >= sizeof(work->worker))
		return !eq_usage(work->cli, "--worker takes at most %zu bytes",
						 sizeof(work->worker) - 1);
	if (worker)
		snprintf(work->worker, sizeof(work->worker), "%s", worker);
	else
	{
		char host[64] = "";

		gethostname(host, sizeof(host) - 1);
		snprintf(work->worker, sizeof(work->worker), "eventq@%s:%d", host,
				 (int) getpid());
	}
	return true;
}

static bool
is_program(const char *path)
{
	struct stat about;

	return stat(path, &about) == 0 && S_ISREG(about.st_mode) &&
		   access(path, X_OK) == 0;
}

/* Whether there is such a program, as execvp would look for it. */
static bool
is_executable(const char *name)
{
	const char *path = getenv("PATH");

	if (strchr(name, '/'))
		return is_program(name);
	for (path = path ? path : "/bin:/usr/bin"; *path;)
	{
		size_t length = strcspn(path, ":");
		char file[4096];

		snprintf(file, sizeof(file), "%.*s/%s", length ? (int) length : 1,
				 length ? path : ".", name);
		if (is_program(file))
			return true;
		path += length;
		path += *path == ':';
	}
	return false;
}

static bool
catch_signals(void)
{
	static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP};
	struct sigaction action;

	if (pipe(signal_pipe) != 0)
		return false;
	for (int i = 0; i < 2; i++)
	{
		fcntl(signal_pipe[i], F_SETFL, O_NONBLOCK);
		fcntl(signal_pipe[i], F_SETFD, FD_CLOEXEC);
	}
	memset(&action, 0, sizeof(action));
	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART;
	for (int i = 0; i < lengthof(numbers); i++)
		sigaction(numbers[i], &action, NULL);
	return true;
}

/*
 * Told to stop, all children are gone, and the server does not answer: whoever started us
 * won't wait forever.
 */
static bool
is_hopeless(Work *work)
{
	int untold = 0;

	if (stop_signals == 0 || eq_now() < work->grace_ends + LAST_WORDS)
		return false;
	for (int i = 0; i < work->n_slots; i++)
	{
		if (work->slots[i].state == SLOT_RUNNING)
			return false;
		untold += work->slots[i].state == SLOT_ENDED;
	}
	eq_error(
		work->cli,
		"the server could not be told how %d jobs ended; they are run again when "
		"their leases run out",
		untold);
	work->exit_code = EQ_EXIT_ERROR;
	return true;
}

/* What time has brought: stops what must be stopped, kills what did not stop. */
static void
look_at_clock(Work *work)
{
	double now = eq_now();

	if (stop_signals > 0 && work->stopping == 0)
	{
		eq_work_log(work, "stopping: %d jobs may end within %g s",
					work->n_slots - eq_work_free_slots(work), work->grace);
		eq_work_stop(work, EQ_EXIT_OK);
	}
	if (stop_signals > 1)
		work->grace_ends = work->stopping;
	for (int i = 0; i < work->n_slots; i++)
	{
		Slot *slot = &work->slots[i];

		if (slot->state != SLOT_RUNNING)
			continue;
		if (now >= slot->lease_end)
			eq_child_stop(work, slot, STOP_LOST);
		else if (slot->time_limit != 0 && now >= slot->time_limit)
			eq_child_stop(work, slot, STOP_TIME_LIMIT);
		else if (stop_signals > 0 && now >= work->grace_ends)
			eq_child_stop(work, slot, STOP_GRACE);
		if (slot->kill_at != 0 && now >= slot->kill_at)
			kill(-slot->pid, SIGKILL);
	}
}

/* Milliseconds until look_at_clock or the server's part has something to do. */
static int
time_to_sleep(const Work *work)
{
	double next = eq_server_next(work), now = eq_now();

	if (stop_signals > 0)
		next = fmin(next, fmax(work->grace_ends + LAST_WORDS, now + 0.1));
	for (int i = 0; i < work->n_slots; i++)
	{
		const Slot *slot = &work->slots[i];

		if (slot->state != SLOT_RUNNING)
			continue;
		if (slot->kill_at != 0)
			next = fmin(next, fmax(slot->kill_at, now + 0.02));
		else
			next = fmin(next, slot->lease_end);
		if (slot->time_limit != 0 && slot->stop == STOP_NOT)
			next = fmin(next, slot->time_limit);
		if (stop_signals > 0 && slot->stop == STOP_NOT)
			next = fmin(next, work->grace_ends);
	}
	if (next <= now)
		return 0;
	return (int) fmin(ceil((next - now) * 1000), 60000);
}

static void
drain_signal_pipe(void)
{
	char bytes[64];

	while (read(signal_pipe[0], bytes, sizeof(bytes)) > 0)
		;
}

static void
loop(Work *work)
{
	struct pollfd *fds = eq_alloc(sizeof(struct pollfd) * (2 + 3 * work->n_slots));
	int *owners = eq_alloc(sizeof(int) * (2 + 3 * work->n_slots));

	for (;;)
	{
		int n = 0, server = -1;

		look_at_clock(work);
		eq_server_turn(work);
		if (work->stopping != 0 && eq_server_idle() &&
			eq_work_free_slots(work) == work->n_slots)
			break;
		if (is_hopeless(work))
			break;
		fds[n].fd = signal_pipe[0];
		fds[n].events = POLLIN;
		owners[n++] = -1;
		if (eq_server_poll(work, &fds[n]))
		{
			server = n;
			owners[n++] = -1;
		}
		for (int i = 0; i < work->n_slots; i++)
		{
			for (int more = eq_child_poll(&work->slots[i], &fds[n]); more > 0;
				 more--)
				owners[n++] = i;
		}
		if (poll(fds, n, time_to_sleep(work)) <= 0)
			continue;
		if (fds[0].revents)
			drain_signal_pipe();
		/* What a child has written must be read before it is reaped. */
		for (int i = 1; i < n; i++)
		{
			if (fds[i].revents && owners[i] >= 0)
				eq_child_io(work, &work->slots[owners[i]], fds[i].fd);
		}
		if (fds[0].revents)
			eq_children_reap(work);
		if (server >= 0 && fds[server].revents)
			eq_server_io(work);
	}
	free(fds);
	free(owners);
}

/* Is --later one that release takes?  Each job that ends with 75 would be held up by another. */
static bool
is_delay(Work *work)
{
	PGresult *result = eq_query(work->cli, "SELECT $1::interval >= '0'", 1,
								&work->later_delay);
	bool good = result && eq_is_true(result, 0, 0);

	if (result && !good)
		eq_error(work->cli, "--later must not be negative");
	PQclear(result);
	return good;
}

/* The caller has said what a child does. */
static int
run(Work *work)
{
	work->slots = eq_alloc(sizeof(Slot) * work->n_slots);
	for (int i = 0; i < work->n_slots; i++)
		eq_slot_init(&work->slots[i]);
	/* Until it is connected, and while a password is asked for, a signal just ends it. */
	if (!eq_connect(work->cli) || !is_delay(work))
		return EQ_EXIT_ERROR;
	if (!catch_signals())
	{
		eq_error(work->cli, "could not make a pipe: %s", strerror(errno));
		return EQ_EXIT_ERROR;
	}
	eq_server_open(work);
	eq_work_log(work, "works on queue \"%s\", %d at a time, as %s", work->queue,
				work->n_slots, work->worker);
	loop(work);
	eq_server_close(work);
	return work->exit_code;
}

int
eq_cmd_work(EqCli *cli, int argc, char **argv)
{
	Work work = {
		.cli = cli, .queue = argv[0], .command = argv + 1, .payload_sql = "payload"};

	if (!read_options(&work))
		return EQ_EXIT_USAGE;
	if (!is_executable(work.command[0]))
	{
		eq_error(cli, "no program \"%s\"", work.command[0]);
		return EQ_EXIT_ERROR;
	}
	return run(&work);
}

#ifdef HAVE_LIBCURL
int
eq_cmd_webhook(EqCli *cli, int argc, char **argv)
{
	Work work = {.cli = cli,
				 .queue = argv[0],
				 .run = eq_webhook_deliver,
				 .payload_sql = eq_webhook_payload_sql};

	if (!read_options(&work))
		return EQ_EXIT_USAGE;
	return eq_webhook_check(cli) ? run(&work) : EQ_EXIT_ERROR;
}
#endif
