# rules.sh: events through rules; sourced by run.sh.
# shellcheck shell=bash
#
#   rules_1, rules_100, rules_1000   events a second through so many rules, of which one
#                                    matches and enqueues a job
#   rule_condition                   through one with a condition and a template that
#                                    three out of four events satisfy
#   rule_runs                        rows of rule_run a second, as the rule runner writes them for
#                                    each firing, against firings a second: the ratio says how many
#                                    could be written in a firing's time
# Each against one INSERT ... SELECT of the same jobs, with the same expressions, into the
# SKIP LOCKED table.  Events are appended in one transaction, and are counted from its
# commit until the rules have seen the last.
rule_events=20000
if wanted rules_1 rules_100 rules_1000 rule_condition rule_runs; then
	sql >/dev/null <<SQL
SELECT event_queue.create_queue('ruled');
CREATE PROCEDURE yardstick.through_rules(OUT per_s float8) LANGUAGE plpgsql AS \$\$
DECLARE
	begun timestamptz;
	last bigint;
	id text := 'L' || random();
BEGIN
	TRUNCATE event_queue.job;
	FOR i IN 1 .. $rule_events / 1000 LOOP
		PERFORM FROM event_queue.append_many('lead', id || i, (SELECT jsonb_agg(jsonb_build_object('event_type', 'lead.created',
			'event_data', jsonb_build_object('n', n, 'name', 'Ann'))) FROM generate_series(1, 1000) n));
	END LOOP;
	COMMIT;
	begun := clock_timestamp();
	SELECT max(position) INTO last FROM event_queue.event_store;
	LOOP
		EXIT WHEN (SELECT position >= last FROM event_queue_internal.rule_checkpoint);
		COMMIT;
		PERFORM pg_sleep(0.002);
	END LOOP;
	per_s := $rule_events / extract(epoch FROM clock_timestamp() - begun);
END \$\$;
-- what rules do, of the events that came last
CREATE PROCEDURE yardstick.by_hand(condition text, payload text, OUT per_s float8) LANGUAGE plpgsql AS \$\$
DECLARE
	begun timestamptz;
BEGIN
	TRUNCATE yardstick.job;
	COMMIT;
	begun := clock_timestamp();
	EXECUTE format('INSERT INTO yardstick.job (queue, payload) SELECT ''ruled'', %s FROM event_queue.event_store
		WHERE position > (SELECT max(position) - $rule_events FROM event_queue.event_store) AND event_type = ''lead.created'' AND %s', payload, condition);
	COMMIT;
	per_s := $rule_events / extract(epoch FROM clock_timestamp() - begun);
END \$\$;
-- the rows of so many firings, 500 a transaction, as the rule runner's batches are
CREATE PROCEDURE yardstick.write_runs(OUT per_s float8) LANGUAGE plpgsql AS \$\$
DECLARE
	begun timestamptz := clock_timestamp();
	first bigint := (SELECT coalesce(max(position), 0) FROM event_queue_internal.rule_run);
BEGIN
	FOR i IN 1 .. $rule_events / 500 LOOP
		INSERT INTO event_queue_internal.rule_run (rule_id, position, version, fired, backfilled)
		SELECT * FROM unnest(array_fill(0, '{500}'), ARRAY(SELECT first + i * 500 + n FROM generate_series(1, 500) n), array_fill(1, '{500}'),
			array_fill(true, '{500}'), array_fill(false, '{500}')) ON CONFLICT DO NOTHING;
		COMMIT;
	END LOOP;
	per_s := $rule_events / extract(epoch FROM clock_timestamp() - begun);
END \$\$;
SQL
	# run_rules NAME CONDITION PAYLOAD-BY-HAND
	run_rules() {
		begin_line
		for _ in 1 2 3; do
			sql -c "CALL yardstick.through_rules(NULL)" >>"$work/ours"
			sql -c "CALL yardstick.by_hand(\$\$$2\$\$, \$\$$3\$\$, NULL)" >>"$work/theirs"
		done
		line "$1"
		median <"$work/ours" >"$work/$1"
	}
	for rules in 1 100 1000; do
		wanted "rules_$rules" || continue
		sql -c "SELECT event_queue.create_rule('matches', 'lead.created', queue => 'ruled', job_name => 'job', payload => '{\"n\": \"\$.data.n\"}')" \
			-c "SELECT count(event_queue.create_rule('rule ' || n, 'other.kind' || n || '.*', queue => 'ruled', job_name => 'job')) FROM generate_series(2, $rules) n" >/dev/null
		run_rules "rules_$rules" true "jsonb_build_object('n', event_data -> 'n')"
		sql -c "SELECT count(event_queue.drop_rule(name)) FROM event_queue.rules" >/dev/null
	done
	[ -f "$work/rules_1" ] && [ -f "$work/rules_1000" ] &&
		awk -v a="$(<"$work/rules_1000")" -v b="$(<"$work/rules_1")" 'BEGIN { printf "# rules: a thousand are %.2f of one\n", a / b }'
	if wanted rule_runs; then
		sql -c "SELECT event_queue.create_rule('fires', 'lead.created', queue => 'ruled', job_name => 'job', payload => '{}')" >/dev/null
		begin_line
		for _ in 1 2 3; do
			sql -c "CALL yardstick.write_runs(NULL)" >>"$work/ours"
			sql -c "CALL yardstick.through_rules(NULL)" >>"$work/theirs"
		done
		line rule_runs
		sql -c "SELECT event_queue.drop_rule('fires')" -c "DELETE FROM event_queue_internal.rule_run WHERE rule_id = 0" >/dev/null
	fi
	if wanted rule_condition; then
		sql -c "SELECT event_queue.create_rule('condition', 'lead.created', \$\$(event_data ->> 'n')::int % 4 > 0\$\$, queue => 'ruled', job_name => 'job',
			payload => '{\"n\": \"\$.data.n\", \"text\": \"Lead {{data.name}} of {{tenant_id}}\"}')" >/dev/null
		run_rules rule_condition "(event_data ->> 'n')::int % 4 > 0" \
			"jsonb_build_object('n', event_data -> 'n', 'text', format('Lead %s of %s', event_data ->> 'name', tenant_id))"
		sql -c "SELECT event_queue.drop_rule('condition')" >/dev/null
	fi
	sql -c "SELECT event_queue.drop_queue('ruled', force => true)" >/dev/null
fi
