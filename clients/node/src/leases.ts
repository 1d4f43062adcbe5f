/* leases.ts: the call that extends leases, as the heartbeat's thread and its process make it. */

export interface LeasedJob {
	id: string;
	token: string;
	/** In ms; null: the queue's. */
	lease: number | null;
}

export interface Extended {
	token: string;
	state: 'leased' | 'cancelled' | 'lost';
	until: number;
}

type Query = (sql: string, values: Array<string | null>) => Promise<Array<Record<string, unknown>>>;

/**
 * Extends the leases, and says what became of each.  A job whose row is locked (its step is part of a transaction
 * that is open) is nobody else's meanwhile: it must not hold up the leases of the others, and is left out.
 */
export async function extendLeases(query: Query, jobs: readonly LeasedJob[]): Promise<Extended[]> {
	const extended: Extended[] = [];
	for (const lease of new Set(jobs.map(job => job.lease)))
		extended.push(...await extend(query, jobs.filter(job => job.lease === lease), lease));
	return extended;
}

async function extend(query: Query, jobs: readonly LeasedJob[], lease: number | null): Promise<Extended[]> {
	try {
		const rows = await query(
			`SELECT t.token::text AS token, r.state::text AS state, (extract(epoch FROM r.leased_until) * 1000)::float8 AS until
			FROM unnest($1::bigint[], $2::uuid[]) WITH ORDINALITY t(id, token, n)
			JOIN event_queue.extend_leases($1::bigint[], $2::uuid[],
				CASE WHEN pg_catalog.set_config('lock_timeout', '300ms', true) IS NOT NULL THEN $3::interval END)
				WITH ORDINALITY r(job_id, state, leased_until, n) USING (n)`,
			[`{${jobs.map(job => job.id)}}`, `{${jobs.map(job => job.token)}}`, lease === null ? null : `${lease} milliseconds`]);
		return rows.map(row => ({ token: row.token, state: row.state, until: Number(row.until) }) as Extended);
	} catch (error) {
		const { code, sqlstate } = error as { code?: string; sqlstate?: string };
		if (code !== '55P03' && sqlstate !== '55P03')
			throw error;
		const extended: Extended[] = [];
		if (jobs.length > 1)
			for (const job of jobs)
				extended.push(...await extend(query, [job], lease));
		return extended;
	}
}
