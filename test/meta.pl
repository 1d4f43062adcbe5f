#!/usr/bin/perl
# meta.pl: META.json is what PGXN's specification 1.0.0 wants, and names the version and
# the files of this tree; so do the control file and the Debian changelog.  "make check"
# runs it.
#
#   meta.pl                      check the tree
#   meta.pl --self-test          see that what is wrong is found
use strict;
use warnings;
use File::Basename qw(dirname);
use JSON::PP;

my $top = dirname(__FILE__) . '/..';

sub slurp
{
	my ($path) = @_;
	open my $in, '<', "$top/$path" or die "$path: $!\n";
	local $/;
	return <$in>;
}

my $version = qr/^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[A-Za-z][\w-]*)?$/;
my ($is_term, $is_text) = map { my $re = $_; sub { !ref $_[0] && defined $_[0] && $_[0] =~ $re } } qr/^[^\s\/\\[:cntrl:]]{2,}$/, qr/\S/;
my $is_texts = sub { $is_text->($_[0]) || ref $_[0] eq 'ARRAY' && @{ $_[0] } && !grep { !$is_text->($_) } @{ $_[0] } };

# complaints META, VERSION: what is wrong with this JSON, of an extension of this version
sub complaints
{
	my ($json, $present) = @_;
	my $meta = eval { decode_json($json) } or return 'not JSON';
	my @bad;
	my $must = sub { my $what = pop; push @bad, $what unless $_[0]; return $_[0] };
	my %known = map { $_ => 1 } qw(name version abstract description generated_by maintainer license provides meta-spec prereqs release_status resources tags no_index);
	$must->($known{$_} || /^x_/i, "unknown key $_") foreach sort keys %$meta;
	$must->($is_term->($meta->{name}), 'name');
	$must->($is_text->($meta->{abstract}), 'abstract');
	$must->($is_texts->($meta->{$_}), $_) foreach qw(maintainer license);
	$must->(($meta->{version} // '') eq $present && $present =~ $version, "version is not $present");
	$must->(ref $meta->{'meta-spec'} eq 'HASH' && ($meta->{'meta-spec'}{version} // '') eq '1.0.0', 'meta-spec');
	$must->(($meta->{release_status} // 'stable') =~ /^(stable|testing|unstable)$/, 'release_status');
	$must->(ref $meta->{provides} eq 'HASH' && %{ $meta->{provides} }, 'provides');
	my %provides = ref $meta->{provides} eq 'HASH' ? %{ $meta->{provides} } : ();
	foreach my $name (sort keys %provides)
	{
		my $it = $provides{$name};
		$must->($is_term->($name) && ref $it eq 'HASH', "provides $name") or next;
		$must->(($it->{version} // '') eq $present, "version of $name is not $present");
		$must->(($it->{file} // '') eq "$name--$present.sql", "file of $name");
		$must->(!defined $it->{docfile} || -f "$top/$it->{docfile}", "docfile of $name is not there");
	}
	my %prereqs = %{ $meta->{prereqs} // {} };
	foreach my $phase (sort keys %prereqs)
	{
		$must->($phase =~ /^(configure|build|test|runtime|develop)$/ || $phase =~ /^x_/i, "prereqs $phase");
		foreach my $relation (sort keys %{ $prereqs{$phase} })
		{
			$must->($relation =~ /^(requires|recommends|suggests|conflicts)$/ || $relation =~ /^x_/i, "prereqs $phase $relation");
			my $of = $prereqs{$phase}{$relation};
			$must->($of->{$_} eq '0' || !(grep { !/^\s*(?:[<>=!]=?\s*)?(\S+)\s*$/ || $1 !~ $version } split /,/, $of->{$_}), "prereqs $phase $relation $_") foreach sort keys %$of;
		}
	}
	$must->(ref($meta->{tags} // []) eq 'ARRAY' && !(grep { ref || !/^[^\/\\[:cntrl:]]{1,256}$/ } @{ $meta->{tags} // [] }), 'tags');
	return @bad;
}

my $meta = slurp('META.json');
my ($present) = slurp('Makefile') =~ /^EXTVERSION = (\S+)$/m or die "Makefile: no EXTVERSION\n";
if (@ARGV && $ARGV[0] eq '--self-test')
{
	foreach my $case (
		[ 'nothing is wrong', qr/^$/, sub { } ],
		[ 'no name', qr/^name$/, sub { delete $_[0]{name} } ],
		[ 'another version', qr/version is not/, sub { $_[0]{version} = '9.9.9' } ],
		[ 'a version of two numbers', qr/prereqs runtime requires PostgreSQL/, sub { $_[0]{prereqs}{runtime}{requires}{PostgreSQL} = '15.0' } ],
		[ 'no maintainer', qr/^maintainer$/, sub { $_[0]{maintainer} = [] } ],
		[ 'a key that is not known', qr/unknown key licence/, sub { $_[0]{licence} = 'x' } ],
		[ 'a file that is not made', qr/file of event_queue/, sub { $_[0]{provides}{event_queue}{file} = 'x.sql' } ],
		[ 'no doc', qr/docfile of event_queue/, sub { $_[0]{provides}{event_queue}{docfile} = 'doc/x.md' } ],
		[ 'a tag with a slash', qr/^tags$/, sub { push @{ $_[0]{tags} }, 'a/b' } ],
		[ 'no specification', qr/^meta-spec$/, sub { $_[0]{'meta-spec'}{version} = '2.0.0' } ])
	{
		my ($name, $wanted, $change) = @$case;
		my $changed = decode_json($meta);
		$change->($changed);
		my $got = join "\n", complaints(encode_json($changed), $present);
		die "meta.pl --self-test: $name: \"$got\"\n" if $got !~ $wanted;
	}
	exit;
}
my @bad = map { "META.json: $_" } complaints($meta, $present);
push @bad, "event_queue.control: default_version is not $present" if slurp('event_queue.control') !~ /^default_version = '\Q$present\E'$/m;
push @bad, "packaging/debian/changelog: the first version is not $present" if slurp('packaging/debian/changelog') !~ /\A\S+ \(\Q$present\E[-)]/;
print "$_\n" foreach @bad;
exit(@bad ? 1 : 0);
