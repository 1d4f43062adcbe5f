// pg.js: the node driver reads each view, and the result of a job's life, by named arguments.
// Run by "make check-drivers" in a cluster of its own (PGHOST, PGPORT).
const { Client } = require('pg');
const assert = require('node:assert');

async function main() {
	const db = new Client({ user: 'postgres', database: 'postgres', host: process.env.PGHOST, port: Number(process.env.PGPORT) });
	await db.connect();
	const one = async (sql, args) => Object.values((await db.query(sql, args)).rows[0])[0];
	let n = 0;
	const is = (got, want, what) => { assert.deepStrictEqual(got, want, what); console.log(`ok ${++n} - ${what}`); };

	await db.query('CREATE EXTENSION event_queue');
	await db.query("SELECT event_queue.create_queue(name => 'mail', lease => '1 minute', sla => '10 s')");
	const job = await one("SELECT event_queue.enqueue(queue => 'mail', name => 'send', payload => $1)", [{ to: 'a' }]);
	const claimed = (await db.query("SELECT * FROM event_queue.claim(queue => 'mail', max_jobs => 10)")).rows;
	is(claimed.map(j => [j.job_id, j.payload]), [[job, { to: 'a' }]], 'claim');
	is(await one('SELECT event_queue.report_progress(job_id => $1, lease_token => $2, progress => $3)', [job, claimed[0].lease_token, { at: 1 }]), true, 'report_progress');
	is(await one('SELECT event_queue.release(job_id => $1, lease_token => $2)', [job, claimed[0].lease_token]), true, 'release');
	const again = (await db.query("SELECT * FROM event_queue.claim('mail')")).rows[0];
	is(await one('SELECT event_queue.complete(job_id => $1, lease_token => $2)', [job, again.lease_token]), true, 'complete');
	is(await one("SELECT event_queue.pause_queue(name => 'mail')"), true, 'pause_queue');
	is(await one("SELECT event_queue.pause_queue(name => 'mail')"), false, 'pause_queue of a paused one');
	is(await one("SELECT event_queue.resume_queue(name => 'mail')"), true, 'resume_queue');
	const views = (await db.query("SELECT relname FROM pg_class WHERE relnamespace = 'event_queue'::regnamespace AND relkind = 'v' ORDER BY 1")).rows;
	for (const { relname } of views) {
		const result = await db.query(`SELECT * FROM event_queue.${relname}`);
		// 1186 interval, 1187 interval[], 2278 void
		is(result.fields.filter(f => [1186, 1187, 2278].includes(f.dataTypeID)).map(f => f.name), [], relname);
	}
	is(await one("SELECT event_queue.drop_queue(name => 'mail', force => true)"), true, 'drop_queue');
	console.log(`1..${n}`);
	await db.end();
}
main().catch(error => { console.error(error); process.exit(1); });
