/*
 * client_sleep.c: sleeps while the client waits for the answer (claim_wait, await_job,
 * wait_for_events), and notices if the client goes away.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"

#include "compat.h"
#include "wake/wake.h"

/*
 * Until the latch is set, the time is over, or the client has gone: a session without
 * one would take a job that nobody does, and keep a pooler's server connection.
 */
void
eq_sleep(long ms)
{
	WaitEvent events[EQ_CLIENT_EVENTS];
	int n_events = 0;

	if (MyProcPort == NULL || !WaitEventSetCanReportClosed())
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ms, PG_WAIT_EXTENSION);
	else
	{
		ModifyWaitEvent(FeBeWaitSet, EQ_CLIENT_SOCKET, WL_SOCKET_CLOSED, NULL);
		n_events = WaitEventSetWait(FeBeWaitSet, ms, events, lengthof(events),
									PG_WAIT_EXTENSION);
	}
	for (int i = 0; i < n_events; i++)
	{
		if (events[i].events & WL_POSTMASTER_DEATH)
			proc_exit(1);
		if (events[i].events & WL_SOCKET_CLOSED)
		{
			ClientConnectionLost = true;
			InterruptPending = true;
		}
	}
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}
