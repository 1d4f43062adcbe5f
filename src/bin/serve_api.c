/*
 * serve_api.c: the JSON API, a table of method, path and SQL.
 *
 * In the SQL $name is a parameter, always of type text: a part of the path ({name}),
 * else one of the query string, NULL if it is missing or empty.  Some names are given
 * by the server: $limit (rows of a page), $payloads (may the session see payloads),
 * $body (of a POST, JSON), $user.  Text of users never becomes SQL.
 *
 * What an entry gives:
 *   ONE   a row with one JSON value; no row, or NULL: 404
 *   LIST  rows of a page, $limit + 1 of them at most; column _cursor is what the next
 *         page gives as $after: {"items": [...], "next": "..."}
 *   WALK  as LIST, but rows that were looked at, up to 2000 of them, with a column _hit:
 *         those that are wanted.  So a search ends soon, found or not; "next" goes on.
 * Numbers of 64 bits are made text, since JavaScript would round them; for the same reason
 * payloads and what is like them come as text (payload_text), shortened in lists.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve.h"

#define MAX_SEGMENTS 8

typedef enum Gives
{
	ONE,
	LIST,
	WALK
} Gives;

typedef struct Endpoint
{
	Method method;
	const char *path;
	const char *when; /* "a,b=c": only with these in the query string; "": always */
	Gives gives;
	const char *sql;
} Endpoint;

/* A parameter "$name" of an entry, in the order of its number */
typedef struct Prepared
{
	char *sql;
	char *names[MAX_PARAMS];
	int nparams;
} Prepared;

/* SQL keeps its own lines. */
/* clang-format off */
#define JOB_STATE                                                                      \
	"CASE WHEN j.leased_until > clock_timestamp() THEN 'leased' "                      \
	"WHEN j.leased_until IS NOT NULL THEN 'stalled' "                                  \
	"WHEN j.suspended AND j.run_at > clock_timestamp() THEN 'suspended' "              \
	"WHEN j.blocked > 0 THEN 'blocked' "                                               \
	"WHEN j.run_at > clock_timestamp() THEN CASE WHEN j.failures > 0 THEN 'retrying' " \
	"ELSE 'scheduled' END "                                                            \
	"WHEN q.paused THEN 'paused' ELSE 'ready' END"

#define JOB_COLUMNS                                                                    \
	"j.job_id::text, q.name AS queue, j.tenant_id, j.name, s.state, j.priority, "      \
	"j.run_at, j.created_at, j.failures, coalesce(j.max_attempts, q.max_attempts) AS " \
	"max_attempts, j.leased_by AS worker, j.claimed_at, j.leased_until, j.group_key, " \
	"j.errors -> -1 ->> 'message' AS last_error, "                                     \
	"CASE WHEN $payloads::boolean THEN left(j.payload::text, 300) END AS payload_text"

/* What a search for jobs may ask; j is a row of job or like it. */
#define JOB_FILTER                                                                      \
	"($name IS NULL OR j.name = $name) AND ($tenant IS NULL OR j.tenant_id = $tenant) " \
	"AND ($search IS NULL OR j.name ILIKE '%' || $search || '%' OR j.job_id::text = "   \
	"$search OR j.errors -> -1 ->> 'message' ILIKE '%' || $search || '%' OR "           \
	"($payloads::boolean AND j.payload::text ILIKE '%' || $search || '%'))"

#define QUEUE_ID                                                                    \
	"(SELECT qq.queue_id FROM event_queue.queue qq WHERE qq.name = $queue)"

#define DEAD_COLUMNS                                                                    \
	"j.job_id::text, q.name AS queue, j.tenant_id, j.name, 'dead' AS state, j.reason, " \
	"j.died_at, j.created_at, j.failures, j.stalled, j.priority, j.group_key, "         \
	"j.errors -> -1 ->> 'message' AS last_error, "                                      \
	"j.errors -> -1 ->> 'sqlstate' AS last_sqlstate, "                                  \
	"j.errors -> -1 ->> 'worker' AS worker, "                                           \
	"CASE WHEN $payloads::boolean THEN left(j.payload::text, 300) END AS payload_text"

#define DEAD_FILTER                                                                 \
	JOB_FILTER                                                                      \
	" AND ($sqlstate IS NULL OR j.errors -> -1 ->> 'sqlstate' = $sqlstate)"

#define DONE_COLUMNS                                                                  \
	"j.job_id::text, q.name AS queue, j.tenant_id, j.name, 'completed' AS state, "    \
	"j.completed_at, j.created_at, j.run_at, j.failures, j.priority, j.leased_by AS " \
	"worker, CASE WHEN $payloads::boolean THEN left(j.payload::text, 300) END AS payload_text"

#define EVENT_COLUMNS                                                                    \
	"e.position::text, e.id, e.tenant_id, e.aggregate_type, e.aggregate_id, e.version, " \
	"e.event_type, e.created_at, e.metadata ->> 'actor' AS actor, "                      \
	"e.metadata ->> 'job_id' AS job_id, e.metadata ->> 'causation_id' AS causation_id, " \
	"e.metadata ->> 'correlation_id' AS correlation_id, "                                \
	"CASE WHEN $payloads::boolean THEN left(e.event_data::text, 300) END AS data_text"

/* Errors of a job; the detail of one may have a whole row of a table in it. */
#define ERRORS                                                                      \
	"CASE WHEN $payloads::boolean THEN coalesce(j.errors, '[]') ELSE "              \
	"(SELECT coalesce(jsonb_agg(e.e - 'detail' ORDER BY e.n), '[]') "               \
	"FROM jsonb_array_elements(j.errors) WITH ORDINALITY e (e, n)) END"

/* Ids of the body's "ids", each once */
#define BODY_IDS                                                                    \
	"(SELECT DISTINCT i.id::bigint AS id FROM jsonb_array_elements_text($body::jsonb -> 'ids') i (id) ORDER BY 1)"

static const Endpoint endpoints[] = {
	/* ---------------------------------------------------------- overview, queues */
	{METHOD_GET, "/api/overview", "", ONE,
	 "WITH s AS MATERIALIZED (SELECT x.queue, x.paused, x.draining, x.depth, x.dead, x.oldest_ready_seconds, x.sla_seconds, "
	 "  x.sla_missed, x.enqueued_per_s, x.completed_per_s, x.failed_per_s, x.completed_total, x.failed_total, x.avg_wait_ms, "
	 "  x.avg_run_ms FROM event_queue.queue_status x), "
	 "w AS (SELECT s.*, CASE WHEN s.depth IS NULL OR s.sla_missed "
	 "  OR (s.failed_per_s > 0 AND s.completed_per_s = 0 AND s.depth > 0) THEN 2 "
	 "  WHEN s.dead > 0 OR s.paused OR s.draining OR s.oldest_ready_seconds > 300 THEN 1 ELSE 0 END AS severity FROM s) "
	 "SELECT json_build_object('totals', (SELECT json_build_object('queues', count(*), "
	 "  'depth', sum(depth)::text, 'dead', sum(dead)::text, 'enqueued_per_s', sum(enqueued_per_s), "
	 "  'completed_per_s', sum(completed_per_s), 'failed_per_s', sum(failed_per_s), "
	 "  'completed_total', sum(completed_total)::text, 'failed_total', sum(failed_total)::text, "
	 "  'unhealthy', count(*) FILTER (WHERE severity = 2), 'degraded', count(*) FILTER (WHERE severity = 1)) FROM w), "
	 "'queues', (SELECT coalesce(json_agg(json_build_object('queue', x.queue, 'severity', x.severity, 'paused', x.paused, "
	 "  'draining', x.draining, 'depth', x.depth::text, 'dead', x.dead::text, 'oldest_ready_seconds', x.oldest_ready_seconds, "
	 "  'sla_seconds', x.sla_seconds, 'sla_missed', x.sla_missed, 'enqueued_per_s', x.enqueued_per_s, "
	 "  'completed_per_s', x.completed_per_s, 'failed_per_s', x.failed_per_s, "
	 "  'avg_wait_ms', x.avg_wait_ms, 'avg_run_ms', x.avg_run_ms)), '[]'::json) "
	 "  FROM (SELECT * FROM w ORDER BY severity DESC, failed_per_s DESC NULLS LAST, dead DESC NULLS LAST, "
	 "    completed_per_s DESC NULLS LAST, depth DESC NULLS LAST, queue LIMIT 12) x))"},
	{METHOD_GET, "/api/health", "", LIST,
	 "SELECT h.check_name AS \"check\", h.ok, h.detail, CASE WHEN NOT h.ok THEN h.hint END AS hint, NULL::text AS _cursor "
	 "FROM event_queue.health() h ORDER BY h.ok, h.check_name LIMIT $limit::int + 1"},
	{METHOD_GET, "/api/queues", "sort", LIST,
	 "SELECT s.queue, s.paused, s.draining, s.depth::text, s.dead::text, s.oldest_ready_seconds, s.sla_seconds, s.sla_missed, "
	 "s.enqueued_per_s, s.completed_per_s, s.failed_per_s, s.avg_wait_ms, s.avg_run_ms, s.completed_total::text, "
	 "s.failed_total::text, NULL::text AS _cursor FROM event_queue.queue_status s "
	 "WHERE $search IS NULL OR s.queue ILIKE '%' || $search || '%' "
	 "ORDER BY CASE $sort WHEN 'depth' THEN s.depth WHEN 'dead' THEN s.dead WHEN 'failed' THEN s.failed_per_s "
	 "WHEN 'rate' THEN s.completed_per_s WHEN 'age' THEN s.oldest_ready_seconds END DESC NULLS LAST, s.queue LIMIT $limit::int"},
	{METHOD_GET, "/api/queues", "", LIST,
	 "SELECT s.queue, s.paused, s.draining, s.depth::text, s.dead::text, s.oldest_ready_seconds, s.sla_seconds, s.sla_missed, "
	 "s.enqueued_per_s, s.completed_per_s, s.failed_per_s, s.avg_wait_ms, s.avg_run_ms, s.completed_total::text, "
	 "s.failed_total::text, s.queue AS _cursor FROM event_queue.queue_status s "
	 "WHERE ($search IS NULL OR s.queue ILIKE '%' || $search || '%') AND ($after IS NULL OR s.queue > $after) "
	 "ORDER BY s.queue LIMIT $limit::int + 1"},
	{METHOD_GET, "/api/queues/{queue}", "", ONE,
	 "SELECT json_build_object('settings', to_jsonb(q) - 'queue_id', 'status', to_jsonb(s) || jsonb_build_object("
	 "'depth', s.depth::text, 'dead', s.dead::text, 'enqueued_total', s.enqueued_total::text, 'claimed_total', s.claimed_total::text, "
	 "'completed_total', s.completed_total::text, 'failed_total', s.failed_total::text, 'dead_total', s.dead_total::text, "
	 "'late_total', s.late_total::text, 'stalled_total', s.stalled_total::text, 'cancelled_total', s.cancelled_total::text)) "
	 "FROM event_queue.queue q JOIN event_queue.queue_status s ON s.queue = q.name WHERE q.name = $queue"},
	{METHOD_GET, "/api/queues/{queue}/limits", "", ONE,
	 "SELECT json_build_object('tokens', l.tokens, 'active', l.active::text) FROM event_queue.queue_limits($queue) l"},
	{METHOD_GET, "/api/queues/{queue}/handlers", "", LIST,
	 "SELECT h.job_name, h.owner, h.function, h.time_limit_seconds, NULL::text AS _cursor FROM event_queue.handlers h "
	 "WHERE h.queue = $queue ORDER BY h.job_name LIMIT $limit::int"},
	{METHOD_GET, "/api/queues/{queue}/jobs", "", LIST,
	 "SELECT j.job_id::text, $queue AS queue, j.name, j.tenant_id, j.state, j.at, j.worker, j.failures, j.last_error, "
	 "NULL::text AS _cursor FROM event_queue.queue_jobs($queue, least($limit::int, 50)) j"},
	{METHOD_POST, "/api/queues/{queue}/pause", "", ONE,
	 "SELECT json_build_object('done', event_queue.pause_queue($queue))"},
	{METHOD_POST, "/api/queues/{queue}/resume", "", ONE,
	 "SELECT json_build_object('done', event_queue.resume_queue($queue))"},
	{METHOD_POST, "/api/queues/{queue}/drain", "", ONE,
	 "SELECT json_build_object('left', event_queue.drain_queue($queue)::text)"},
	{METHOD_POST, "/api/queues/{queue}/retry-waiting", "", ONE,
	 "SELECT json_build_object('retried', event_queue.retry_waiting($queue)::text)"},

	/* ---------------------------------------------------------- jobs */
	{METHOD_GET, "/api/jobs", "state=leased", LIST,
	 "SELECT r.job_id::text, r.queue_name AS queue, r.tenant_id, r.name, 'leased' AS state, r.claimed_at, r.leased_until, "
	 "r.running_ms::text, r.attempt - 1 AS failures, r.worker, r.group_key, "
	 "CASE WHEN $payloads::boolean THEN r.progress END AS progress, CASE WHEN $payloads::boolean THEN left(r.payload::text, 300) END AS payload_text, "
	 "NULL::text AS _cursor FROM event_queue.running_jobs($queue, 1000) r "
	 "WHERE ($name IS NULL OR r.name = $name) AND ($tenant IS NULL OR r.tenant_id = $tenant) "
	 "AND ($search IS NULL OR r.name ILIKE '%' || $search || '%' OR r.job_id::text = $search OR r.worker ILIKE '%' || $search || '%') "
	 "LIMIT 200"},
	{METHOD_GET, "/api/jobs", "state=blocked,queue", LIST,
	 "SELECT j.job_id::text, $queue AS queue, j.name, j.tenant_id, j.state, j.at AS run_at, j.failures, j.last_error, "
	 "NULL::text AS _cursor FROM event_queue.queue_jobs($queue, 200) j WHERE j.state = 'blocked' AND ($name IS NULL OR j.name = $name)"},
	{METHOD_GET, "/api/jobs", "state=completed,queue", WALK,
	 "SELECT " DONE_COLUMNS
	 ", j.completed_at::text || '~' || j.job_id AS _cursor, "
	 "($name IS NULL OR j.name = $name) AND ($tenant IS NULL OR j.tenant_id = $tenant) "
	 "AND ($search IS NULL OR j.name ILIKE '%' || $search || '%' OR j.job_id::text = $search) AS _hit "
	 "FROM (SELECT * FROM event_queue.job_history h WHERE h.queue_id = " QUEUE_ID
	 " AND h.expires_at > now() "
	 "AND ($after IS NULL OR (h.completed_at, h.job_id) < (split_part($after, '~', 1)::timestamptz, split_part($after, '~', 2)::bigint)) "
	 "ORDER BY h.completed_at DESC, h.job_id DESC LIMIT 2000) j JOIN event_queue.queue q USING (queue_id) "
	 "ORDER BY j.completed_at DESC, j.job_id DESC"},
	{METHOD_GET, "/api/jobs", "state=completed", WALK,
	 "SELECT " DONE_COLUMNS ", j.job_id::text AS _cursor, "
	 "($name IS NULL OR j.name = $name) AND ($tenant IS NULL OR j.tenant_id = $tenant) "
	 "AND ($search IS NULL OR j.name ILIKE '%' || $search || '%' OR j.job_id::text = $search) AS _hit "
	 "FROM (SELECT * FROM event_queue.job_history h WHERE h.expires_at > now() AND ($after IS NULL OR h.job_id < $after::bigint) "
	 "ORDER BY h.job_id DESC LIMIT 2000) j JOIN event_queue.queue q USING (queue_id) ORDER BY j.job_id DESC"},
	{METHOD_GET, "/api/jobs", "queue", WALK,
	 "SELECT " JOB_COLUMNS
	 ", concat_ws('~', j.lane, j.priority, j.run_at, j.job_id) AS _cursor, "
	 "($state IS NULL OR s.state = $state) AND " JOB_FILTER " AS _hit "
	 "FROM (SELECT * FROM event_queue.job x WHERE x.queue_id = " QUEUE_ID
	 " AND x.blocked = 0 AND ($after IS NULL OR "
	 "(x.lane, x.priority, x.run_at, x.job_id) > (split_part($after, '~', 1)::int, split_part($after, '~', 2)::smallint, "
	 "split_part($after, '~', 3)::timestamptz, split_part($after, '~', 4)::bigint)) "
	 "ORDER BY x.lane, x.priority, x.run_at, x.job_id LIMIT 2000) j JOIN event_queue.queue q USING (queue_id) "
	 "CROSS JOIN LATERAL (SELECT " JOB_STATE
	 ") s (state) ORDER BY j.lane, j.priority, j.run_at, j.job_id"},
	{METHOD_GET, "/api/jobs", "", WALK,
	 "SELECT " JOB_COLUMNS
	 ", j.job_id::text AS _cursor, ($state IS NULL OR s.state = $state) AND " JOB_FILTER
	 " AS _hit "
	 "FROM (SELECT * FROM event_queue.job x WHERE $after IS NULL OR x.job_id < $after::bigint "
	 "ORDER BY x.job_id DESC LIMIT 2000) j JOIN event_queue.queue q USING (queue_id) "
	 "CROSS JOIN LATERAL (SELECT " JOB_STATE
	 ") s (state) ORDER BY j.job_id DESC"},
	{METHOD_GET, "/api/next", "", LIST,
	 "SELECT n.nth, n.job_id::text, n.queue_name AS queue, n.name, n.tenant_id, n.state, n.run_at, n.priority, n.attempt, "
	 "NULL::text AS _cursor FROM event_queue.next_jobs($queue, least($limit::int, 100)) n"},
	{METHOD_GET, "/api/jobs/{id}", "", ONE,
	 "SELECT x.job FROM ("
	 "SELECT to_jsonb(j) - '{payload,metadata,errors,progress,job_id}'::text[] || jsonb_build_object('job_id', j.job_id::text, "
	 "'errors', " ERRORS ", 'metadata', j.metadata, "
	 "'progress', CASE WHEN $payloads::boolean THEN j.progress END, 'progress_text', CASE WHEN $payloads::boolean THEN jsonb_pretty(j.progress) END, 'payload_text', CASE WHEN $payloads::boolean THEN jsonb_pretty(j.payload) END) "
	 "FROM event_queue.jobs j WHERE j.job_id = $id::bigint "
	 "UNION ALL "
	 "SELECT to_jsonb(j) - '{payload,errors,job_id}'::text[] || jsonb_build_object('job_id', j.job_id::text, 'state', 'dead', "
	 "'errors', " ERRORS ", 'payload_text', CASE WHEN $payloads::boolean THEN jsonb_pretty(j.payload) END) "
	 "FROM (SELECT q.name AS queue, d.* FROM event_queue.dead_letter d JOIN event_queue.queue q USING (queue_id)) j WHERE j.job_id = $id::bigint "
	 "UNION ALL "
	 "SELECT to_jsonb(j) - '{payload,result,job_id}'::text[] || jsonb_build_object('job_id', j.job_id::text, 'state', 'completed', "
	 "'worker', j.leased_by, 'errors', " ERRORS ", 'payload_text', CASE WHEN $payloads::boolean THEN jsonb_pretty(j.payload) END, "
	 "'result_text', CASE WHEN $payloads::boolean THEN jsonb_pretty(j.result) END) "
	 "FROM event_queue.history j WHERE j.job_id = $id::bigint) x (job) LIMIT 1"},
	{METHOD_GET, "/api/jobs/{id}/why", "", LIST,
	 "SELECT e.reason, e.until, e.detail, NULL::text AS _cursor FROM event_queue.explain_job($id::bigint) e"},
	{METHOD_GET, "/api/jobs/{id}/log", "", LIST,
	 "SELECT l.at, l.level, l.message, l.at::text AS _cursor FROM event_queue.job_log l WHERE l.job_id = $id::bigint "
	 "AND ($after IS NULL OR l.at > $after::timestamptz) ORDER BY l.at LIMIT $limit::int + 1"},
	{METHOD_GET, "/api/jobs/{id}/depends", "", LIST,
	 "SELECT d.depends_on::text, d.name, d.completed_at, NULL::text AS _cursor FROM event_queue.dependency_results($id::bigint) d LIMIT 200"},
	{METHOD_POST, "/api/jobs/{id}/cancel", "", ONE,
	 "SELECT json_build_object('result', event_queue.cancel_job($id::bigint))"},
	{METHOD_POST, "/api/jobs/{id}/priority", "", ONE,
	 "SELECT json_build_object('done', event_queue.change_priority($id::bigint, ($body::jsonb ->> 'priority')::int))"},

	/* ---------------------------------------------------------- dead letters */
	{METHOD_GET, "/api/dead", "queue", WALK,
	 "SELECT " DEAD_COLUMNS
	 ", j.died_at::text || '~' || j.job_id AS _cursor, " DEAD_FILTER
	 " AS _hit "
	 "FROM (SELECT * FROM event_queue.dead_letter d WHERE d.queue_id = " QUEUE_ID
	 " AND ($after IS NULL OR "
	 "(d.died_at, d.job_id) < (split_part($after, '~', 1)::timestamptz, split_part($after, '~', 2)::bigint)) "
	 "ORDER BY d.died_at DESC, d.job_id DESC LIMIT 2000) j JOIN event_queue.queue q USING (queue_id) "
	 "ORDER BY j.died_at DESC, j.job_id DESC"},
	{METHOD_GET, "/api/dead", "", WALK,
	 "SELECT " DEAD_COLUMNS ", j.job_id::text AS _cursor, " DEAD_FILTER
	 " AS _hit "
	 "FROM (SELECT * FROM event_queue.dead_letter d WHERE $after IS NULL OR d.job_id < $after::bigint "
	 "ORDER BY d.job_id DESC LIMIT 2000) j JOIN event_queue.queue q USING (queue_id) ORDER BY j.job_id DESC"},
	{METHOD_GET, "/api/dead/preview", "queue", ONE,
	 "WITH d AS MATERIALIZED (SELECT x.job_id, x.name, x.died_at, x.errors -> -1 ->> 'sqlstate' AS sqlstate, "
	 "x.errors -> -1 ->> 'message' AS message, x.tenant_id "
	 "FROM event_queue.dead_letter x WHERE x.queue_id = " QUEUE_ID
	 " ORDER BY x.died_at, x.job_id LIMIT 20001), "
	 "m AS (SELECT * FROM d WHERE ($name IS NULL OR d.name = $name) AND ($tenant IS NULL OR d.tenant_id = $tenant) "
	 "AND ($sqlstate IS NULL OR d.sqlstate = $sqlstate)) "
	 "SELECT json_build_object('count', (SELECT count(*) FROM m), 'more', (SELECT count(*) > 20000 FROM d), "
	 "'oldest', (SELECT min(died_at) FROM m), 'newest', (SELECT max(died_at) FROM m), "
	 "'kinds', (SELECT coalesce(json_agg(k), '[]'::json) FROM (SELECT name, sqlstate, count(*), min(message) AS message "
	 "FROM m GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 10) k))"},
	{METHOD_POST, "/api/dead/retry-all", "", ONE,
	 "SELECT json_build_object('count', event_queue.retry_all_dead(b.o ->> 'queue', b.o ->> 'name', b.o ->> 'tenant', "
	 "b.o ->> 'sqlstate', NULL, least(coalesce((b.o ->> 'max')::int, 2000), 2000))) FROM (SELECT $body::jsonb) b (o)"},
	{METHOD_POST, "/api/dead/discard-all", "", ONE,
	 "SELECT json_build_object('count', event_queue.discard_all_dead(b.o ->> 'queue', b.o ->> 'name', b.o ->> 'tenant', "
	 "b.o ->> 'sqlstate', NULL, least(coalesce((b.o ->> 'max')::int, 2000), 2000))) FROM (SELECT $body::jsonb) b (o)"},
	{METHOD_POST, "/api/dead/retry", "", ONE,
	 "SELECT json_build_object('count', count(event_queue.retry_dead(i.id))) FROM " BODY_IDS
	 " i"},
	{METHOD_POST, "/api/dead/discard", "", ONE,
	 "SELECT json_build_object('count', count(event_queue.discard_dead(i.id))) FROM " BODY_IDS
	 " i"},
	{METHOD_POST, "/api/dead/{id}/retry", "", ONE,
	 "SELECT json_build_object('done', event_queue.retry_dead($id::bigint, $body::jsonb -> 'payload'))"},
	{METHOD_POST, "/api/dead/{id}/discard", "", ONE,
	 "SELECT json_build_object('done', event_queue.discard_dead($id::bigint))"},

	/* ---------------------------------------------------------- events */
	{METHOD_GET, "/api/events", "", WALK,
	 "SELECT " EVENT_COLUMNS ", e.position::text AS _cursor, "
	 "($type IS NULL OR e.event_type = $type) AND ($aggregate IS NULL OR e.aggregate_type = $aggregate) "
	 "AND ($tenant IS NULL OR e.tenant_id = $tenant) AND ($search IS NULL OR e.event_type ILIKE '%' || $search || '%' "
	 "OR e.aggregate_id = $search OR e.aggregate_type ILIKE '%' || $search || '%' OR e.id::text = $search) AS _hit "
	 "FROM (SELECT * FROM event_queue.event_store x WHERE $after IS NULL OR x.position < $after::bigint "
	 "ORDER BY x.position DESC LIMIT 2000) e ORDER BY e.position DESC"},
	{METHOD_GET, "/api/events/{id}", "", ONE,
	 "SELECT to_jsonb(x) - '{event_data,position}'::text[] || jsonb_build_object('position', x.position::text, "
	 "'data_text', CASE WHEN $payloads::boolean THEN jsonb_pretty(x.event_data) END) FROM event_queue.event_store x WHERE x.id = $id::uuid LIMIT 1"},
	{METHOD_GET, "/api/aggregates/{type}/{aggregate}", "", LIST,
	 "SELECT " EVENT_COLUMNS
	 ", e.version::text AS _cursor FROM event_queue.event_store e "
	 "WHERE e.aggregate_id = $aggregate AND e.aggregate_type = $type AND e.tenant_id = event_queue.resolve_tenant($tenant) "
	 "AND ($after IS NULL OR e.version < $after::int) ORDER BY e.version DESC LIMIT $limit::int + 1"},
	{METHOD_GET, "/api/aggregates/{type}/{aggregate}/state", "", ONE,
	 "SELECT json_build_object('hidden', NOT $payloads::boolean, 'version', $version, 'state_text', CASE WHEN $payloads::boolean THEN "
	 "jsonb_pretty(event_queue.aggregate_state($type, $aggregate, $version::int, NULL, $tenant)) END)"},
	{METHOD_GET, "/api/aggregates/{type}/{aggregate}/diff", "", LIST,
	 "SELECT d.path, CASE WHEN $payloads::boolean THEN d.old_value::text END AS old_value, "
	 "CASE WHEN $payloads::boolean THEN d.new_value::text END AS new_value, NULL::text AS _cursor "
	 "FROM event_queue.aggregate_diff($type, $aggregate, coalesce($from, '0')::int, $to::int, $tenant) d LIMIT 1000"},
	{METHOD_GET, "/api/aggregates/{type}/{aggregate}/activity", "", LIST,
	 "SELECT a.at, a.who, a.kind, a.what, a.id, a.version, a.state, a.last_error, NULL::text AS _cursor "
	 "FROM event_queue.aggregate_activity($type, $aggregate, least($limit::int, 200), $tenant) a"},
	{METHOD_GET, "/api/trace/{id}", "", LIST,
	 "SELECT t.depth, t.kind, t.id, t.name, t.caused_by, t.at, t.detail, NULL::text AS _cursor "
	 "FROM event_queue.trace($id::uuid, $tenant) t LIMIT 1000"},

	/* ---------------------------------------------------------- rules, schedules, flows */
	{METHOD_GET, "/api/rules", "", LIST,
	 "SELECT r.name, r.owner, r.tenant_id, r.event_pattern, r.queue, r.job_name, coalesce(r.function, "
	 "(SELECT string_agg(k, ', ') FROM jsonb_array_elements(r.actions) a, jsonb_object_keys(a) k)) AS function, r.enabled, x.state, x.seen::text, "
	 "x.matched::text, x.failed::text, x.last_fired_at, x.last_error, x.last_error_at, r.name AS _cursor "
	 "FROM (SELECT * FROM event_queue.rules y WHERE ($after IS NULL OR y.name > $after) AND ($search IS NULL "
	 "OR y.name ILIKE '%' || $search || '%' OR y.event_pattern ILIKE '%' || $search || '%') ORDER BY y.name LIMIT $limit::int + 1) r "
	 "LEFT JOIN event_queue.rule_stats x ON x.rule = r.name ORDER BY r.name"},
	{METHOD_GET, "/api/rules/{name}", "", ONE,
	 "SELECT to_jsonb(r) - '{payload,options}'::text[] || jsonb_build_object('start_position', r.start_position::text, 'payload', r.payload IS NOT NULL, "
	 "'payload_text', CASE WHEN $payloads::boolean THEN jsonb_pretty(r.payload) END, 'state', x.state, 'seen', x.seen::text, "
	 "'matched', x.matched::text, 'failed', x.failed::text, 'last_fired_at', x.last_fired_at, 'last_error', x.last_error, "
	 "'lag_events', x.lag_events::text) FROM event_queue.rules r LEFT JOIN event_queue.rule_stats x ON x.rule = r.name WHERE r.name = $name"},
	{METHOD_GET, "/api/rules/{name}/activity", "", LIST,
	 "SELECT a.at, a.event_type, a.aggregate_type, a.aggregate_id, a.event_id, a.tenant_id, a.kind, a.id, a.name, a.state, a.last_error, "
	 "NULL::text AS _cursor FROM event_queue.rule_activity($name, least($limit::int, 100), 5000) a"},
	{METHOD_POST, "/api/rules/{name}/pause", "", ONE,
	 "SELECT json_build_object('done', event_queue.pause_rule($name))"},
	{METHOD_POST, "/api/rules/{name}/resume", "", ONE,
	 "SELECT json_build_object('done', event_queue.resume_rule($name))"},
	{METHOD_GET, "/api/schedules", "", LIST,
	 "SELECT s.name, s.cron, s.time_zone, s.queue, s.job_name, s.priority, s.tenant_id, s.enabled, s.next_run, s.last_run, "
	 "(SELECT json_agg(x.t) FROM (WITH RECURSIVE n (i, t) AS (SELECT 1, s.next_run UNION ALL "
	 "SELECT i + 1, event_queue.cron_next(s.cron, s.time_zone, t) FROM n WHERE i < 5 AND t IS NOT NULL) "
	 "SELECT t FROM n WHERE t IS NOT NULL) x) AS next_runs, x.state, x.runs::text, x.missed::text, x.last_error, s.name AS _cursor "
	 "FROM (SELECT * FROM event_queue.schedules y WHERE ($after IS NULL OR y.name > $after) "
	 "AND ($search IS NULL OR y.name ILIKE '%' || $search || '%') ORDER BY y.name LIMIT $limit::int + 1) s "
	 "LEFT JOIN event_queue.schedule_stats x ON x.schedule = s.name ORDER BY s.name"},
	{METHOD_POST, "/api/schedules/{name}/pause", "", ONE,
	 "SELECT json_build_object('done', event_queue.pause_schedule($name))"},
	{METHOD_POST, "/api/schedules/{name}/resume", "", ONE,
	 "SELECT json_build_object('done', event_queue.resume_schedule($name))"},
	{METHOD_GET, "/api/flows", "", LIST,
	 "SELECT x.job_id::text, j.name, j.queue, j.state, x.waits_for, x.finished, x.job_id::text AS _cursor FROM ("
	 "SELECT d.job_id, count(*) AS waits_for, count(d.completed_at) AS finished FROM ("
	 "SELECT * FROM event_queue.job_dependency y WHERE $after IS NULL OR y.job_id < $after::bigint ORDER BY y.job_id DESC LIMIT 2000) d "
	 "GROUP BY d.job_id ORDER BY d.job_id DESC LIMIT $limit::int + 1) x "
	 "LEFT JOIN LATERAL (SELECT a.name, a.queue, a.state FROM event_queue.all_jobs a WHERE a.job_id = x.job_id LIMIT 1) j ON true "
	 "ORDER BY x.job_id DESC"},
	{METHOD_GET, "/api/flows/{id}", "", ONE,
	 "WITH RECURSIVE up (id, n) AS (SELECT $id::bigint, 0 UNION "
	 "SELECT d.job_id, up.n + 1 FROM up JOIN event_queue.job_dependency d ON d.depends_on = up.id AND d.completed_at IS NULL WHERE up.n < 20), "
	 "top (id) AS (SELECT id FROM up ORDER BY n DESC, id LIMIT 1), "
	 "down (id, parent, done_at, depth) AS (SELECT id, NULL::bigint, NULL::timestamptz, 0 FROM top UNION ALL "
	 "SELECT d.depends_on, d.job_id, d.completed_at, down.depth + 1 FROM down JOIN event_queue.job_dependency d ON d.job_id = down.id "
	 "WHERE down.depth < 20), "
	 "few AS (SELECT * FROM down LIMIT 300) "
	 "SELECT json_build_object('top', (SELECT id::text FROM top), 'nodes', (SELECT json_agg(json_build_object('job_id', f.id::text, "
	 "'parent', f.parent::text, 'depth', f.depth, 'name', coalesce(j.name, d.name), 'queue', j.queue, "
	 "'state', coalesce(j.state, CASE WHEN f.done_at IS NOT NULL THEN 'completed' END), 'completed_at', f.done_at) ORDER BY f.depth, f.id) "
	 "FROM few f LEFT JOIN LATERAL (SELECT a.name, a.queue, a.state FROM event_queue.all_jobs a WHERE a.job_id = f.id LIMIT 1) j ON true "
	 "LEFT JOIN event_queue.job_dependency d ON d.job_id = f.parent AND d.depends_on = f.id))"},

	/* ---------------------------------------------------------- the rest */
	{METHOD_GET, "/api/subscriptions", "", LIST,
	 "SELECT s.name, s.tenant_id, s.filter, s.buckets, s.members, s.checkpoint::text, s.moved_at, s.watermark::text, "
	 "s.lag_events::text, s.lag_seconds, s.parked::text, s.name AS _cursor FROM event_queue.subscription_status s "
	 "WHERE $after IS NULL OR s.name > $after ORDER BY s.name LIMIT $limit::int + 1"},
	{METHOD_GET, "/api/workers", "", LIST,
	 "SELECT w.kind, w.pid, w.worker, w.queue, w.job_id::text AS current_job, w.job_name, w.since, w.jobs_done::text, w.leases::text, "
	 "NULL::text AS _cursor FROM event_queue.worker_stats w ORDER BY w.kind, w.worker, w.pid LIMIT 1000"},
	{METHOD_GET, "/api/store", "", ONE,
	 "SELECT to_jsonb(e) || jsonb_build_object('watermark', e.watermark::text, 'last_position', e.last_position::text, "
	 "'total_bytes', e.total_bytes::text) FROM event_queue.event_stats e"},

	/* ---------------------------------------------------------- metrics, SLA, alerts, audit */
	{METHOD_GET, "/api/queues/{queue}/stats", "", ONE,
	 "SELECT to_jsonb(s) - '{enqueued_total,claimed_total,completed_total,failed_total,retried_total,released_total,stalled_total,"
	 "dead_total,cancelled_total,late_total}'::text[] FROM event_queue.queue_stats s WHERE s.queue = $queue"},
	{METHOD_GET, "/api/queues/{queue}/names", "", LIST,
	 "SELECT j.job_name, j.completed_total::text, j.failed_total::text, j.dead_total::text, j.completed_per_s_5m, j.failed_per_s_5m, "
	 "j.wait_p50_1h, j.wait_p95_1h, j.run_p50_1h, j.run_p95_1h, NULL::text AS _cursor FROM event_queue.job_stats j "
	 "WHERE j.queue = $queue ORDER BY j.completed_per_s_5m DESC NULLS LAST, j.job_name LIMIT 100"},
	{METHOD_GET, "/api/stats/timeseries", "", ONE,
	 "SELECT json_build_object('items', coalesce(json_agg(to_jsonb(h) || jsonb_build_object('enqueued', h.enqueued::text, "
	 "'completed', h.completed::text, 'failed', h.failed::text, 'dead', h.dead::text, 'late', h.late::text, "
	 "'depth', h.depth::text, 'dead_letters', h.dead_letters::text) ORDER BY h.at), '[]'::json)) "
	 "FROM event_queue.queue_history($queue, coalesce($since, '1 hour')::interval, coalesce($step, '1 minute')::interval) h"},
	{METHOD_GET, "/api/tenants", "", LIST,
	 "SELECT s.tenant, s.enqueued_total::text, s.completed_total::text, s.failed_total::text, s.dead_total::text, s.enqueued_per_s_5m, "
	 "s.completed_per_s_5m, s.failed_per_s_5m, s.wait_p95_1h, s.run_p95_1h, s.in_time_24h, NULL::text AS _cursor "
	 "FROM event_queue.tenant_stats s ORDER BY s.completed_per_s_5m DESC NULLS LAST, s.completed_total DESC, s.tenant LIMIT 200"},
	{METHOD_GET, "/api/slo", "", LIST,
	 "SELECT s.queue, s.sla_seconds, s.target, s.good::text, s.total::text, s.budget_left, s.burn_5m, s.burn_1h, s.burn_6h, "
	 "NULL::text AS _cursor FROM event_queue.slo_status s ORDER BY s.budget_left, s.queue LIMIT 200"},
	{METHOD_GET, "/api/alerts", "", LIST,
	 "SELECT a.key, a.name, a.kind, a.object, a.state, a.severity, a.since, a.raised_at, a.value, a.threshold, a.detail, a.hint, "
	 "a.acked_by, a.acked_at, a.ack_note, a.snoozed_until, NULL::text AS _cursor FROM event_queue.alerts a "
	 "ORDER BY a.state = 'raised' DESC, coalesce(a.raised_at, a.since) DESC, a.key LIMIT 200"},
	{METHOD_GET, "/api/alerts/history", "", LIST,
	 "SELECT a.alert_id::text, a.key, a.kind, a.severity, a.raised_at, a.resolved_at, a.resolution, a.detail, a.acked_by, "
	 "a.alert_id::text AS _cursor FROM event_queue.alert_history a WHERE $after IS NULL OR a.alert_id < $after::bigint "
	 "ORDER BY a.alert_id DESC LIMIT $limit::int + 1"},
	{METHOD_POST, "/api/alerts/ack", "", ONE,
	 "SELECT json_build_object('count', event_queue.ack_alert(b.o ->> 'key', b.o ->> 'note')) FROM (SELECT $body::jsonb) b (o)"},
	{METHOD_POST, "/api/alerts/snooze", "", ONE,
	 "SELECT json_build_object('until', event_queue.snooze_alert(b.o ->> 'key', duration => (b.o ->> 'duration')::interval, "
	 "note => b.o ->> 'note')) FROM (SELECT $body::jsonb) b (o)"},
	{METHOD_GET, "/api/audit", "", WALK,
	 "SELECT a.audit_id::text, a.at, a.action, a.object_type, a.object, a.tenant_id, a.session_role, a.role, a.actor, a.application_name, "
	 "CASE WHEN $payloads::boolean THEN left(a.before::text, 2000) END AS before, CASE WHEN $payloads::boolean THEN left(a.after::text, 2000) END AS after, "
	 "a.audit_id::text AS _cursor, ($object IS NULL OR a.object ILIKE '%' || $object || '%' OR a.action ILIKE '%' || $object || '%' "
	 "OR a.session_role = $object) AS _hit "
	 "FROM (SELECT * FROM event_queue.audit_log x WHERE $after IS NULL OR x.audit_id < $after::bigint "
	 "ORDER BY x.audit_id DESC LIMIT 2000) a ORDER BY a.audit_id DESC"},
};
/* clang-format on */

#define ENDPOINTS ((int) (sizeof(endpoints) / sizeof(endpoints[0])))

static Prepared prepared[ENDPOINTS];

static const char list_begin[] =
	"SELECT json_build_object('items', coalesce(json_agg(to_jsonb(r) - '{_cursor,_n}'::text[] ORDER BY r._n) "
	"FILTER (WHERE r._n <= $limit::int OR r._cursor IS NULL), '[]'::json), "
	"'next', CASE WHEN count(*) > $limit::int THEN max(r._cursor) FILTER (WHERE r._n = $limit::int) END) "
	"FROM (SELECT x.*, row_number() OVER () AS _n FROM (";
static const char list_end[] = ") x) r";

static const char walk_begin[] =
	"WITH w AS MATERIALIZED (SELECT x.*, row_number() OVER () AS _n, "
	"count(*) FILTER (WHERE x._hit) OVER (ROWS UNBOUNDED PRECEDING) AS _h FROM (";
static const char walk_end[] =
	") x) SELECT json_build_object('items', coalesce(json_agg(to_jsonb(w) - '{_cursor,_hit,_n,_h}'::text[] ORDER BY w._n) "
	"FILTER (WHERE w._hit AND w._h <= $limit::int), '[]'::json), 'looked', count(*), "
	"'next', CASE WHEN max(w._h) > $limit::int THEN max(w._cursor) FILTER (WHERE w._hit AND w._h = $limit::int) "
	"WHEN count(*) >= 2000 THEN (SELECT l._cursor FROM w l ORDER BY l._n DESC LIMIT 1) END) FROM w";

/* Makes numbered parameters of the named ones. */
static void
prepare(const Endpoint *endpoint, Prepared *into)
{
	struct evbuffer *out = must(evbuffer_new());
	const char *parts[3] = {"", endpoint->sql, ""};

	if (endpoint->gives == LIST)
	{
		parts[0] = list_begin;
		parts[2] = list_end;
	}
	else if (endpoint->gives == WALK)
	{
		parts[0] = walk_begin;
		parts[2] = walk_end;
	}
	for (int part = 0; part < 3; part++)
		for (const char *p = parts[part]; *p;)
		{
			size_t length = 0;
			int n = 0;

			if (*p == '$')
				while (islower((unsigned char) p[length + 1]))
					length++;
			if (length == 0)
			{
				evbuffer_add(out, p++, 1);
				continue;
			}
			while (n < into->nparams &&
				   (strlen(into->names[n]) != length ||
					strncmp(into->names[n], p + 1, length) != 0))
				n++;
			if (n == into->nparams)
			{
				if (n == MAX_PARAMS)
				{
					serve_log("too many parameters: %s", endpoint->path);
					exit(1);
				}
				into->names[into->nparams++] = must(strndup(p + 1, length));
			}
			evbuffer_add_printf(out, "$%d", n + 1);
			p += length + 1;
		}
	evbuffer_add(out, "", 1);
	into->sql = must(strdup((char *) evbuffer_pullup(out, -1)));
	evbuffer_free(out);
}

void
api_init(void)
{
	for (int i = 0; i < ENDPOINTS; i++)
		prepare(&endpoints[i], &prepared[i]);
}

/* Is the path one of the pattern?  values: where "{name}" stands, in order. */
static bool
path_matches(const char *pattern, const char *path, const char *names[],
			 size_t name_lengths[], const char *values[], size_t lengths[], int *n)
{
	*n = 0;
	for (;;)
	{
		size_t of_pattern = strcspn(pattern, "/");
		size_t of_path = strcspn(path, "/");

		if (pattern[0] == '{')
		{
			if (of_path == 0)
				return false;
			names[*n] = pattern + 1;
			name_lengths[*n] = of_pattern - 2;
			values[*n] = path;
			lengths[(*n)++] = of_path;
		}
		else if (of_pattern != of_path || strncmp(pattern, path, of_path) != 0)
			return false;
		pattern += of_pattern;
		path += of_path;
		if (*pattern != *path)
			return false;
		if (*pattern == '\0')
			return true;
		pattern++;
		path++;
	}
}

/* Are the parameters there that the entry is for? */
static bool
when_matches(const char *when, const char *query)
{
	while (*when)
	{
		size_t length = strcspn(when, ",");
		size_t name_length = strcspn(when, "=,");
		char name[40];
		char *value;
		bool fits;

		snprintf(name, sizeof(name), "%.*s", (int) name_length, when);
		value = query ? form_value(query, name) : NULL;
		fits = value && value[0];
		if (fits && name_length < length)
			fits = strlen(value) == length - name_length - 1 &&
				   strncmp(value, when + name_length + 1,
						   length - name_length - 1) == 0;
		free(value);
		if (!fits)
			return false;
		when += length;
		if (*when == ',')
			when++;
	}
	return true;
}

static void
api_done(Query *query, PGresult *result, const char *error, bool refused)
{
	const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
	bool fine = result && PQresultStatus(result) == PGRES_TUPLES_OK;

	if (query->writes)
		serve_log("action role=%s path=%s outcome=%s", query->session->user,
				  query->http->path,
				  fine ? "done" : (state ? state : "no connection"));
	if (!result)
		http_problem(query->http, refused ? 401 : 503, NULL,
					 refused ? "the database refuses this role now" : error, NULL);
	else if (!fine)
		reply_error(query->http, result);
	else if (PQntuples(result) < 1 || PQgetisnull(result, 0, 0))
		http_problem(query->http, 404, NULL,
					 "there is no such thing, or this role may not see it", NULL);
	else
		http_reply(query->http, 200, "application/json", NULL,
				   PQgetvalue(result, 0, 0), PQgetlength(result, 0, 0));
}

/* Asks for a page of so many rows. */
static char *
limit_of(const char *query)
{
	char *given = query ? form_value(query, "limit") : NULL;
	int limit = given ? atoi(given) : 50;
	char text[20];

	free(given);
	snprintf(text, sizeof(text), "%d", limit < 1 ? 1 : limit > 200 ? 200 : limit);
	return must(strdup(text));
}

/* api_request: false if there is no such path. */
bool
api_request(Http *http, Session *session)
{
	const char *names[MAX_SEGMENTS];
	size_t name_lengths[MAX_SEGMENTS];
	const char *values[MAX_SEGMENTS];
	size_t lengths[MAX_SEGMENTS];
	Method method = http->method == METHOD_HEAD ? METHOD_GET : http->method;
	bool other_method = false;

	for (int i = 0; i < ENDPOINTS; i++)
	{
		int n;
		Query *query;

		if (!path_matches(endpoints[i].path, http->path, names, name_lengths, values,
						  lengths, &n))
			continue;
		if (endpoints[i].method != method)
		{
			other_method = true;
			continue;
		}
		if (!when_matches(endpoints[i].when, http->query))
			continue;
		query = query_make(session, http, prepared[i].sql, api_done);
		query->writes = method == METHOD_POST;
		for (int p = 0; p < prepared[i].nparams; p++)
		{
			const char *name = prepared[i].names[p];
			char *value = NULL;
			bool of_path = false;

			for (int s = 0; s < n && !of_path; s++)
				if (strlen(name) == name_lengths[s] &&
					strncmp(name, names[s], name_lengths[s]) == 0)
				{
					of_path = true;
					value = url_decode(values[s], lengths[s], false);
					/* Not of a path, so nobody asks for it. */
					if (!value)
						value = must(strdup(""));
				}
			if (!of_path)
			{
				if (strcmp(name, "limit") == 0)
					value = limit_of(http->query);
				else if (strcmp(name, "payloads") == 0)
					value = must(strdup(session->payloads ? "true" : "false"));
				else if (strcmp(name, "body") == 0)
					value = must(strdup(http->body_length > 0 ? http->body : "{}"));
				else if (strcmp(name, "user") == 0)
					value = must(strdup(session->user));
				else
					value = http->query ? form_value(http->query, name) : NULL;
				if (value && value[0] == '\0')
				{
					free(value);
					value = NULL;
				}
			}
			query->params[query->nparams++] = value;
		}
		query_send(query);
		return true;
	}
	if (other_method)
	{
		http_problem(http, 405, NULL, "method not allowed for this path", NULL);
		return true;
	}
	return false;
}
