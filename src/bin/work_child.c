/*
 * work_child.c: the child process of a job: its environment, its pipes, its exit.
 *
 * It reads the payload from stdin and writes the result to stdout; its stderr goes to ours
 * line by line, and its tail is kept for the error.  If the last line is "retry-after:
 * SECONDS", a failed job is tried again then.  Each child leads a process group, so that
 * the processes that it started are stopped with it, and Ctrl-C reaches us alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "work.h"
#include "work_job.h"

/* Between SIGTERM and SIGKILL */
#define KILL_AFTER 3.0

extern char **environ;

void
eq_slot_init(Slot *slot)
{
	memset(slot, 0, sizeof(*slot));
	slot->in = slot->out = slot->err = -1;
	eq_buf_init(&slot->payload);
	eq_buf_init(&slot->output);
	eq_buf_init(&slot->error);
	eq_buf_init(&slot->error_line);
	eq_buf_init(&slot->message);
}

static void
close_pipe(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Frees the slot; what a large job needed goes back to the system. */
void
eq_slot_clear(Slot *slot)
{
	close_pipe(&slot->in);
	close_pipe(&slot->out);
	close_pipe(&slot->err);
	free(slot->name);
	eq_buf_free(&slot->payload);
	eq_buf_free(&slot->output);
	eq_buf_free(&slot->error);
	eq_buf_free(&slot->error_line);
	eq_buf_free(&slot->message);
	eq_slot_init(slot);
}

/* The environment of the child: ours, and the job.  For the child only. */
static char **
child_environment(Work *work, const PGresult *job, int row)
{
	static const struct
	{
		const char *name;
		int column;
	} variables[] = {
		{"EVENTQ_JOB_ID", JOB_ID},
		{"EVENTQ_LEASE_TOKEN", JOB_TOKEN},
		{"EVENTQ_NAME", JOB_NAME},
		{"EVENTQ_TENANT", JOB_TENANT},
		{"EVENTQ_METADATA", JOB_METADATA},
		{"EVENTQ_ATTEMPT", JOB_ATTEMPT},
		{"EVENTQ_MAX_ATTEMPTS", JOB_MAX_ATTEMPTS},
		{"EVENTQ_STALLED", JOB_STALLED},
		{"EVENTQ_PRIORITY", JOB_PRIORITY},
		{"EVENTQ_CREATED_AT", JOB_CREATED_AT},
		{"EVENTQ_RUN_AT", JOB_RUN_AT},
		{"EVENTQ_GROUP_KEY", JOB_GROUP_KEY},
	};
	char **all;
	int n = 0;

	while (environ[n])
		n++;
	all = eq_alloc(sizeof(char *) * (n + lengthof(variables) + 2));
	n = 0;
	for (char **old = environ; *old; old++)
	{
		if (strncmp(*old, "EVENTQ_", 7) != 0)
			all[n++] = *old;
	}
	for (int i = 0; i < lengthof(variables); i++)
	{
		const char *value = PQgetvalue(job, row, variables[i].column);
		EqBuf buf;

		/* The system takes no string above 128 kB. */
		if (PQgetisnull(job, row, variables[i].column) || strlen(value) > 100000)
			continue;
		eq_buf_init(&buf);
		eq_buf_printf(&buf, "%s=%s", variables[i].name, value);
		all[n++] = buf.data;
	}
	all[n] = eq_alloc(strlen(work->queue) + 20);
	sprintf(all[n], "EVENTQ_QUEUE=%s", work->queue);
	return all;
}

static void
run_child(Work *work, char **environment, int in, int out, int err, pid_t parent)
{
	sigset_t none;

	setpgid(0, 0);
#ifdef __linux__
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_TRY_LATER);
#endif
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	environ = environment;
	if (work->run)
	{
		int status;

		/* No exec does it: ends of pipes, also of other children, and the connection */
		for (int fd = 3; fd < 3 * 1000 + 100; fd++)
			close(fd);
		status = work->run();
		fflush(stdout);
		_exit(status);
	}
	execvp(work->command[0], work->command);
	/* A fault of this machine, perhaps in the middle of a deployment: no attempt of the job */
	fprintf(stderr, "could not run \"%s\": %s\n", work->command[0], strerror(errno));
	_exit(EXIT_TRY_LATER);
}

/* Ends above 2, so that dup2 in the child overwrites none; not for other children. */
static bool
make_pipe(int ends[2])
{
	if (pipe(ends) != 0)
		return false;
	for (int i = 0; i < 2; i++)
	{
		int fd = fcntl(ends[i], F_DUPFD_CLOEXEC, 3);

		close(ends[i]);
		ends[i] = fd;
	}
	return ends[0] >= 0 && ends[1] >= 0;
}

/* Starts the child for a claimed job; a job that can't be started now is released. */
void
eq_child_start(Work *work, Slot *slot, const PGresult *job, int row)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
	pid_t parent = getpid();
	char **environment;
	int n_old = 0;

	eq_buf_string(&slot->payload, PQgetvalue(job, row, JOB_PAYLOAD));
	slot->state = SLOT_RUNNING;
	slot->started = eq_now();
	environment = child_environment(work, job, row);
	if (make_pipe(in) && make_pipe(out) && make_pipe(err))
		slot->pid = fork();
	else
		slot->pid = -1;
	if (slot->pid == 0)
		run_child(work, environment, in[0], out[1], err[1], parent);
	while (environ[n_old])
		n_old++;
	for (char **mine = environment; *mine; mine++)
	{
		bool inherited = false;

		for (int i = 0; i < n_old && !inherited; i++)
			inherited = environ[i] == *mine;
		if (!inherited)
			free(*mine);
	}
	free(environment);
	close_pipe(&in[0]);
	close_pipe(&out[1]);
	close_pipe(&err[1]);
	slot->in = in[1];
	slot->out = out[0];
	slot->err = err[0];
	if (slot->pid < 0)
	{
		eq_work_log(work, "job %s can't be started: %s", slot->job_id,
					strerror(errno));
		slot->state = SLOT_ENDED;
		slot->settle = SETTLE_RELEASE;
		close_pipe(&slot->in);
		close_pipe(&slot->out);
		close_pipe(&slot->err);
		return;
	}
	setpgid(slot->pid, slot->pid); /* who comes first */
	fcntl(slot->in, F_SETFL, O_NONBLOCK);
	fcntl(slot->out, F_SETFL, O_NONBLOCK);
	fcntl(slot->err, F_SETFL, O_NONBLOCK);
}

/* Has a child end.  One whose lease is lost gets no time for it. */
void
eq_child_stop(Work *work, Slot *slot, Stop why)
{
	if (slot->state != SLOT_RUNNING)
		return;
	if (why == STOP_LOST)
	{
		if (slot->stop == STOP_NOT)
		{
			eq_work_log(work, "job %s: the lease is lost, its child is killed",
						slot->job_id);
			slot->stop = why;
		}
		kill(-slot->pid, SIGKILL);
		slot->kill_at = eq_now() + 1;
		return;
	}
	if (slot->stop != STOP_NOT)
		return;
	slot->stop = why;
	slot->kill_at = eq_now() + KILL_AFTER;
	kill(-slot->pid, SIGTERM);
}

/* Which of its pipes are to be watched; how many. */
int
eq_child_poll(const Slot *slot, struct pollfd *fds)
{
	int n = 0;

	if (slot->state != SLOT_RUNNING)
		return 0;
	if (slot->in >= 0)
	{
		fds[n].fd = slot->in;
		fds[n++].events = POLLOUT;
	}
	if (slot->out >= 0)
	{
		fds[n].fd = slot->out;
		fds[n++].events = POLLIN;
	}
	if (slot->err >= 0)
	{
		fds[n].fd = slot->err;
		fds[n++].events = POLLIN;
	}
	return n;
}

/* A child that does not read its stdin is none of our business. */
static void
write_payload(Slot *slot)
{
	ssize_t n = write(slot->in, slot->payload.data + slot->written,
					  slot->payload.length - slot->written);

	if (n > 0)
		slot->written += n;
	else if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0 || slot->written == slot->payload.length)
		close_pipe(&slot->in);
}

/* Whole lines go to our stderr, with the job's number. */
static void
pass_lines(Work *work, Slot *slot, const char *bytes, size_t length, bool end)
{
	for (size_t i = 0; i < length; i++)
	{
		if (bytes[i] != '\n' && slot->error_line.length < 8192)
		{
			eq_buf_char(&slot->error_line, bytes[i]);
			continue;
		}
		fprintf(stderr, "[%s] %s\n", slot->job_id, slot->error_line.data);
		eq_buf_reset(&slot->error_line);
		if (bytes[i] != '\n')
			eq_buf_char(&slot->error_line, bytes[i]);
	}
	if (end && slot->error_line.length > 0)
	{
		fprintf(stderr, "[%s] %s\n", slot->job_id, slot->error_line.data);
		eq_buf_reset(&slot->error_line);
	}
}

static void
keep_error(Work *work, Slot *slot, const char *bytes, size_t length)
{
	pass_lines(work, slot, bytes, length, false);
	eq_buf_bytes(&slot->error, bytes, length);
	if (slot->error.length > KEPT_STDERR * 4)
	{
		memmove(slot->error.data,
				slot->error.data + slot->error.length - KEPT_STDERR,
				KEPT_STDERR + 1);
		slot->error.length = KEPT_STDERR;
	}
}

/* Reads what there is; false at the end of the file. */
static bool
read_some(Work *work, Slot *slot, int fd)
{
	char bytes[65536];
	ssize_t n = read(fd, bytes, sizeof(bytes));

	if (n < 0)
		return errno == EINTR;
	if (n == 0)
		return false;
	if (fd == slot->err)
		keep_error(work, slot, bytes, n);
	else if (slot->output.length + n <= MAX_OUTPUT)
		eq_buf_bytes(&slot->output, bytes, n);
	else
		eq_child_stop(work, slot, STOP_OUTPUT);
	return true;
}

void
eq_child_io(Work *work, Slot *slot, int fd)
{
	if (slot->state != SLOT_RUNNING)
		return;
	if (fd == slot->in)
		write_payload(slot);
	else if (!read_some(work, slot, fd) && errno != EAGAIN)
	{
		if (fd == slot->out)
			close_pipe(&slot->out);
		else
			close_pipe(&slot->err);
	}
}

/* Takes the line "retry-after: SECONDS" from the end of stderr. */
static void
take_retry_after(Slot *slot)
{
	static const char key[] = "retry-after:";
	char *text = slot->error.data;
	size_t end = slot->error.length, begin;
	double seconds;

	while (end > 0 && strchr(" \t\r\n", text[end - 1]))
		end--;
	text[end] = '\0';
	for (begin = end; begin > 0 && text[begin - 1] != '\n';)
		begin--;
	if (strncasecmp(text + begin, key, strlen(key)) != 0 ||
		!eq_parse_seconds(text + begin + strlen(key) +
							  strspn(text + begin + strlen(key), " \t"),
						  &seconds))
		return;
	slot->retry_after = seconds;
	slot->error.length = begin;
	text[begin] = '\0';
}

/* The last line that says something, else the exit status (code; -1: a signal). */
static void
take_message(Slot *slot, const char *status, int code)
{
	char *text = slot->error.data;
	size_t end = slot->error.length, begin;

	while (end > 0 && strchr(" \t\r\n", text[end - 1]))
		end--;
	begin = end;
	while (begin > 0 && text[begin - 1] != '\n' && end - begin < 1000)
		begin--;
	eq_buf_reset(&slot->message);
	if (end == begin || code < 0)
		eq_buf_string(&slot->message, status);
	if (end > begin && code < 0)
		eq_buf_string(&slot->message, ": ");
	eq_buf_bytes(&slot->message, text + begin, end - begin);
	/* the context */
	if (end > KEPT_STDERR)
	{
		memmove(text, text + end - KEPT_STDERR, KEPT_STDERR);
		end = KEPT_STDERR;
	}
	slot->error.length = end;
	text[end] = '\0';
	eq_buf_printf(&slot->error, "%s(%s)", end > 0 ? "\n" : "", status);
}

/* Decides how the job of a child that has ended is settled. */
static void
judge(Work *work, Slot *slot, int wait_status)
{
	char status[100];
	int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;

	if (WIFEXITED(wait_status))
		snprintf(status, sizeof(status), "exit status %d", code);
	else
		snprintf(status, sizeof(status), "killed by signal %d",
				 WTERMSIG(wait_status));
	take_retry_after(slot);
	take_message(slot, status, code);
	slot->state = SLOT_ENDED;
	slot->settle_at = 0;
	slot->settle = SETTLE_FAIL;
	/* Many programs end with 0 when they are told to stop, and have not finished then. */
	if (code == 0 && slot->stop == STOP_NOT)
		slot->settle = SETTLE_COMPLETE;
	else if (slot->stop == STOP_LOST)
		slot->settle = SETTLE_NOTHING;
	else if (slot->stop == STOP_GRACE)
		slot->settle = SETTLE_GIVE_BACK;
	else if (slot->stop == STOP_CANCELLED)
	{
		slot->settle = SETTLE_FAIL_FINAL;
		eq_buf_reset(&slot->message);
		eq_buf_string(&slot->message, "cancelled");
	}
	else if (slot->stop == STOP_TIME_LIMIT)
	{
		eq_buf_reset(&slot->message);
		eq_buf_string(&slot->message, "stopped at its time limit");
	}
	else if (slot->stop == STOP_OUTPUT)
	{
		eq_buf_reset(&slot->message);
		eq_buf_printf(&slot->message, "wrote more than %d MB",
					  MAX_OUTPUT / 1024 / 1024);
	}
	else if (code == EXIT_TRY_LATER)
		slot->settle = SETTLE_RELEASE;
	else if (code == EXIT_DEAD)
		slot->settle = SETTLE_FAIL_FINAL;
}

/*
 * Reaps the children that have ended.  Whom a child has left behind with its pipes is
 * not waited for.
 */
void
eq_children_reap(Work *work)
{
	int wait_status;
	pid_t pid;

	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0)
	{
		for (int i = 0; i < work->n_slots; i++)
		{
			Slot *slot = &work->slots[i];

			if (slot->state != SLOT_RUNNING || slot->pid != pid)
				continue;
			for (int n = 0;
				 n < 64 && slot->out >= 0 && read_some(work, slot, slot->out); n++)
				;
			for (int n = 0;
				 n < 64 && slot->err >= 0 && read_some(work, slot, slot->err); n++)
				;
			pass_lines(work, slot, NULL, 0, true);
			close_pipe(&slot->in);
			close_pipe(&slot->out);
			close_pipe(&slot->err);
			judge(work, slot, wait_status);
			break;
		}
	}
}
