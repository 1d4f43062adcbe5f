/* worker-sql.ts: the statements by which a worker claims and completes jobs (worker.ts). */
import { prepared } from './database';

const claimedColumns = `c.job_id::text AS id, c.lease_token::text AS token, c.name, c.tenant_id, c.payload::text AS payload, c.metadata::text AS metadata,
	c.attempt::text AS attempt, c.max_attempts::text AS max_attempts, c.stalled::text AS stalled, c.priority::text AS priority, c.group_key,
	(extract(epoch FROM c.created_at) * 1000)::text AS created, (extract(epoch FROM c.leased_until) * 1000)::text AS until,
	c.time_limit_ms::text AS time_limit`;

export const claimSql = prepared(`SELECT ${claimedColumns} FROM event_queue.claim($1, $2, $3, $4::interval, $5, $6) c`);
export const completeAndClaimSql = prepared(
	`SELECT ${claimedColumns} FROM event_queue.complete_many_and_claim($1::bigint[], $2::uuid[], $3, $4, $5, $6::interval, $7, $8, false, $9::jsonb[]) c`);
export const completeSql = prepared('SELECT r.job_id::text AS id, r.state FROM event_queue.complete_many($1::bigint[], $2::uuid[], $3::jsonb[]) r');
