# Random appends from many sessions, with kills in between, against a model:
# what a session was told stays; nothing else is there but what was under way at
# a kill; versions have no gap; a reader sees each event once, in order; a
# subscription's effects happen once, and those of a group in order by
# aggregate.
#
# EQ_MODEL_APPENDS: how many events in all, at least (100,000; 500,000 with
# EQ_LONG).
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;
use EventQueueCrash;

my $wanted = $ENV{EQ_MODEL_APPENDS} || ($ENV{EQ_LONG} ? 500_000 : 100_000);
my $kills = $ENV{EQ_LONG} ? 20 : 4;
my $writers = 16;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
# Test::Cluster switches fsync off: a killed server loses nothing by that, as
# the machine goes on.
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
max_connections = 60
restart_after_crash = off
deadlock_timeout = 100ms
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_subscription('single'), event_queue.create_subscription('team', buckets => 16);
CREATE TABLE seen (who text, n bigserial, position bigint, aggregate_id text);

-- One aggregate in five is the hot one.
CREATE FUNCTION any_aggregate() RETURNS text LANGUAGE sql AS
$$ SELECT CASE WHEN random() < 0.2 THEN 'hot' ELSE 'a' || floor(random() * 60) END $$;

-- Says "asked" with the ids before, and "told" with position, aggregate and
-- version of each event after the commit.
CREATE PROCEDURE write_events(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	kind int;
	events jsonb;
	batch jsonb;
	ids text[] := '{}';
	told text;
	more text;
	one text;
	two text;
	version int;
BEGIN
	FOR i IN 1 .. rounds LOOP
		kind := floor(random() * 9);
		one := any_aggregate();
		events := (SELECT jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'event_type', 'x', 'event_data', jsonb_build_object('n', i)))
			FROM generate_series(1, 1 + (random() * 3)::int));
		ids := ARRAY(SELECT e ->> 'id' FROM jsonb_array_elements(events) e);
		told := NULL;
		IF kind = 0 THEN
			-- several aggregates, each with a part of the events
			batch := (SELECT jsonb_agg(e || jsonb_build_object('aggregate_type', 'm', 'aggregate_id', any_aggregate(), 'expected_version', 'any'))
				FROM jsonb_array_elements(events) e);
			batch := (SELECT jsonb_agg(b ORDER BY b ->> 'aggregate_id') FROM (
				SELECT jsonb_build_object('aggregate_type', 'm', 'aggregate_id', e ->> 'aggregate_id', 'events',
					jsonb_agg(jsonb_build_object('id', e ->> 'id', 'event_type', 'x'))) AS b
				FROM jsonb_array_elements(batch) e GROUP BY e ->> 'aggregate_id') x);
		END IF;
		RAISE NOTICE 'asked %', array_to_string(ids, ' ');
		BEGIN
			IF kind = 0 THEN
				SELECT string_agg(format('%s:%s:%s', a.position, a.aggregate_id, a.version), ' ') INTO told
				FROM event_queue.append_batch(batch) a;
			ELSIF kind <= 2 THEN
				SELECT string_agg(format('%s:%s:%s', a.position, one, a.version), ' ') INTO told
				FROM event_queue.append_many('m', one, events) a;
			ELSE
				-- with an exact version that may be outdated by then
				version := CASE WHEN kind = 3 THEN event_queue.aggregate_version('m', one) END;
				SELECT format('%s:%s:%s', a.position, one, a.version) INTO told
				FROM event_queue.append('m', one, 'x', '{}', coalesce(version::text, 'any'), ids[1]::uuid) a;
				-- a second one, whose savepoint may be rolled back; never locks backwards
				two := any_aggregate();
				IF kind = 4 AND two > one AND ids[2] IS NOT NULL THEN
					BEGIN
						SELECT format('%s:%s:%s', a.position, two, a.version) INTO more
						FROM event_queue.append('m', two, 'x', id => ids[2]::uuid) a;
						IF random() < 0.5 THEN
							RAISE EXCEPTION USING ERRCODE = 'ZZ001', MESSAGE = 'savepoint';
						END IF;
						told := told || ' ' || more;
					EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL;
					END;
				END IF;
				-- the same again is the same again
				IF kind = 5 THEN
					SELECT format('%s:%s:%s', a.position, one, a.version) INTO more
					FROM event_queue.append('m', one, 'x', '{}', id => ids[1]::uuid) a;
					IF more <> told THEN
						RAISE EXCEPTION '% is not %', more, told;
					END IF;
				END IF;
			END IF;
			IF random() < 0.1 THEN
				RAISE EXCEPTION USING ERRCODE = 'ZZ001', MESSAGE = 'rollback';
			END IF;
		EXCEPTION WHEN SQLSTATE 'ZZ001' OR SQLSTATE 'EQ001' THEN
			told := NULL;
		END;
		COMMIT;
		RAISE NOTICE 'told %', coalesce(told, '');
	END LOOP;
END $$;

CREATE PROCEDURE read_events(place bigint) LANGUAGE plpgsql AS $$
DECLARE
	positions bigint[];
	watermark bigint;
BEGIN
	LOOP
		CALL event_queue.wait_for_events(place, '1 s', watermark);
		SELECT array_agg(position ORDER BY n) INTO positions
		FROM (SELECT position, row_number() OVER () AS n FROM event_queue.read_all(place, 500)) x;
		IF positions IS NOT NULL THEN
			place := positions[array_upper(positions, 1)];
			RAISE NOTICE 'saw %', array_to_string(positions, ' ');
		END IF;
		COMMIT;
	END LOOP;
END $$;

CREATE PROCEDURE consume(name text, me text) LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
BEGIN
	LOOP
		WITH e AS (SELECT position, aggregate_id FROM event_queue.fetch_events(name, 200)),
			i AS (INSERT INTO seen (who, position, aggregate_id) SELECT name, e.position, e.aggregate_id FROM e ORDER BY e.position)
		SELECT max(position) INTO last FROM e;
		IF last IS NOT NULL THEN
			PERFORM event_queue.ack(name, last);
		END IF;
		COMMIT;
		IF last IS NULL THEN
			PERFORM pg_sleep(0.01);
		END IF;
	END LOOP;
END $$;
));

my (%asked, %told, @saw, @complaints);
my $place = 0;

sub start_session
{
	my ($sql, $file) = @_;
	# terse: a kill's message has no context, of whatever lines
	return IPC::Run::start([ 'psql', '-XqAt', '-v', 'VERBOSITY=terse', '-d', $node->connstr('postgres'), '-c', 'SET client_min_messages = notice', '-c', $sql ],
		'>', '/dev/null', '2>', $file);
}

sub take_in
{
	my ($text) = @_;
	# A kill may cut the last line short.
	while ($text =~ /^(.*)\n/mg)
	{
		my $line = $1;
		if ($line =~ /^NOTICE:  asked (.*)/) { $asked{$_} = 1 for split / /, $1; }
		elsif ($line =~ /^NOTICE:  told ?(.*)/)
		{
			for (split / /, $1)
			{
				my ($position, $aggregate, $version) = split /:/;
				push @complaints, "position $position was given twice" if $told{$position};
				$told{$position} = "$aggregate:$version";
			}
		}
		elsif ($line =~ /^NOTICE:  saw (.*)/)
		{
			for (split / /, $1)
			{
				push @complaints, "read $_ after $place" if $_ <= $place;
				push @saw, $place = $_;
			}
		}
		# what a kill leaves behind
		elsif ($line !~ /terminat|crash|server closed|connection to server|abnormally|shared memory|before or while|^\s*$/)
		{
			push @complaints, $line;
		}
	}
}

for my $round (0 .. $kills)
{
	# until the kill; in the last round as many as are still wanted
	my $each = $round < $kills ? 1_000_000 : int($wanted / ($kills + 1) / $writers) + 1;
	my (@files, @writers, @others);
	my $file = sub { push @files, $node->basedir . "/session-$round-" . @files; return $files[-1]; };
	for (1 .. $writers)
	{
		push @writers, start_session("CALL write_events($each)", $file->());
	}
	for my $sql ("CALL read_events($place)", "CALL consume('single', '1')", "CALL consume('team', '1')", "CALL consume('team', '2')")
	{
		push @others, start_session($sql, $file->());
	}
	if ($round < $kills)
	{
		my $by_then = int(($round + 1) * $wanted / ($kills + 1));
		$node->poll_query_until('postgres', "SELECT count(*) >= $by_then FROM event_queue.event_store") or die;
		kill_server($node);
	}
	else
	{
		$_->finish for @writers;
		@writers = ();
		my $end = $node->safe_psql('postgres', 'SELECT max(position) FROM event_queue.event_store');
		ok($node->poll_query_until('postgres', "SELECT (SELECT count(*) FROM seen) = 2 * (SELECT count(*) FROM event_queue.event_store)"),
			'both subscriptions come to the end');
		# the reader has no state in the database
		for (1 .. 100)
		{
			last if slurp_file($files[$writers]) =~ /saw .*\b$end\n/;
			select(undef, undef, undef, 0.1);
		}
		$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL %'));
	}
	$_->finish for @writers, @others;
	take_in(slurp_file($_)) for @files;
	next if $round == $kills;
	start_again($node);
}

is(join("\n", @complaints[0 .. ($#complaints < 9 ? $#complaints : 9)]), '', 'no session met an error that it must not meet');
my @stored = split /\n/, $node->safe_psql('postgres',
	"SELECT position || '=' || aggregate_id || ':' || version || '=' || id FROM event_queue.event_store ORDER BY position");
my (%stored, %ids);
for (@stored)
{
	my ($position, $what, $id) = split /=/;
	$stored{$position} = $what;
	$ids{$id}++;
}
cmp_ok(scalar(@stored), '>=', $wanted, scalar(@stored) . ' events are stored, ' . scalar(keys %told) . ' of them confirmed');
is(scalar(grep { ($stored{$_} // '') ne $told{$_} } keys %told), 0, 'every confirmed event is where it was said to be');
is(scalar(grep { !$asked{$_} } keys %ids), 0, 'no event that no one asked for');
is(scalar(grep { $_ > 1 } values %ids), 0, 'no event twice');
cmp_ok(scalar(@stored) - scalar(keys %told), '<=', 4 * $writers * $kills, 'unconfirmed are only those that a kill met');
is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT version - lag(version, 1, 0) OVER (PARTITION BY aggregate_id ORDER BY position) AS step
	FROM event_queue.event_store) x WHERE step <> 1'), '0', 'versions of each aggregate rise by one with the positions');
is(join(' ', @saw) eq join(' ', map { (split /=/)[0] } @stored), 1, 'the reader saw each event once, in order');
is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT who, position FROM seen GROUP BY 1, 2 HAVING count(*) > 1) x'), '0', 'effects of subscriptions happened once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT position < lag(position) OVER (PARTITION BY who, aggregate_id ORDER BY n) AS back FROM seen) x WHERE back'),
	'0', 'in order by aggregate, in a group too');
is($node->safe_psql('postgres', "SELECT count(*) FROM (SELECT position < lag(position) OVER (ORDER BY n) AS back FROM seen WHERE who = 'single') x WHERE back"),
	'0', 'in order of all without one');
$node->stop;
done_testing();
