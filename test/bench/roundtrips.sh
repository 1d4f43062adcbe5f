# roundtrips.sh: a lead, its event and a job, by one function of the user's own against
# five statements of the client (BEGIN, INSERT, append, enqueue, COMMIT); transactions a
# second.  roundtrips_1ms has each message wait for a network of 1 ms.
# shellcheck shell=bash
if wanted roundtrips roundtrips_1ms; then
	sql <<'SQL' >/dev/null
CREATE TABLE yardstick.lead (lead_id text PRIMARY KEY, name text NOT NULL);
CREATE FUNCTION yardstick.create_lead(lead_id text, name text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO yardstick.lead VALUES (lead_id, name);
	PERFORM event_queue.append('lead', lead_id, 'lead.created', jsonb_build_object('name', name));
	RETURN event_queue.enqueue('bench', 'call', jsonb_build_object('lead', lead_id));
END
$$;
SQL
	new_lead='\set n random(1, 9000000000000000)'
	one="SELECT yardstick.create_lead(:n::text, 'Ana');"
	five=('BEGIN;' "INSERT INTO yardstick.lead VALUES (:n::text, 'Ana');"
		"SELECT event_queue.append('lead', :n::text, 'lead.created', jsonb_build_object('name', 'Ana'));"
		"SELECT event_queue.enqueue('bench', 'call', jsonb_build_object('lead', :n::text));" 'COMMIT;')
	script one_trip "$new_lead" "$one"
	script five_trips "$new_lead" "${five[@]}"
	far=("$new_lead")
	for statement in "${five[@]}"; do
		far+=('\sleep 1 ms' "$statement")
	done
	script one_trip_far "$new_lead" '\sleep 1 ms' "$one"
	script five_trips_far "${far[@]}"
	bench roundtrips 4 one_trip five_trips "$empty"
	bench roundtrips_1ms 4 one_trip_far five_trips_far "$empty"
fi
