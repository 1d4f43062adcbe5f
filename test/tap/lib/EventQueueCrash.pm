# EventQueueCrash.pm: killing a server as a power cut would, and starting it
# again.  Used by the tests of crashes.
package EventQueueCrash;
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Exporter 'import';
our @EXPORT = qw(kill_server start_again);

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

1;
