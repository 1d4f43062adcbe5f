# EventQueueCrash.pm: killing a server as a power cut would, and starting it
# again; waiting for what is there after it.  Used by the tests of crashes.
package EventQueueCrash;
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Exporter 'import';
our @EXPORT = qw(kill_server start_again wait_for);

# All processes at once: backends would work on for a while without a
# postmaster.
sub kill_server
{
	my ($node) = @_;
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	kill 'STOP', $postmaster;
	kill 'KILL', split(' ', `pgrep -P $postmaster`);
	$node->kill9;
}

# Children of the killed postmaster may need a moment to be gone; the node's own
# start can't be tried twice.
sub start_again
{
	my ($node) = @_;
	for (1 .. 60)
	{
		if (PostgreSQL::Test::Utils::system_log('pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start') == 0)
		{
			$node->_update_pid(1);
			return;
		}
		select(undef, undef, undef, 0.5);
	}
	die 'the server does not start again';
}

# A minute at most; false if the query does not give t.  (Of a server that is in recovery
# poll_query_until dies, and where psql ends before it has read the query, so does psql.)
sub wait_for
{
	my ($node, $query) = @_;
	for (1 .. 600)
	{
		my ($status, $out) = eval { $node->psql('postgres', $query) };
		return 1 if defined $status && $status == 0 && ($out // '') eq 't';
		select(undef, undef, undef, 0.1);
	}
	return 0;
}

1;
