#!/usr/bin/perl
# embed.pl: makes a C file of the dashboard's files, so that the program needs none.
#
#   embed.pl WEB-DIR [CHART.JS] > web/assets.inc
#
# With CHART.JS (Chart.js of Debian's package libjs-chart.js) it is served as /chart.js;
# without it, an empty script, and the page draws its charts by itself.
use strict;
use warnings;
use Digest::SHA qw(sha1_hex);
use File::Find qw(find);
use IO::Compress::Gzip qw(gzip $GzipError);

my ($dir, $chart) = @ARGV;
my %type = (
	html => 'text/html; charset=utf-8', js => 'text/javascript; charset=utf-8',
	css => 'text/css; charset=utf-8', svg => 'image/svg+xml', png => 'image/png');
my %file;
find({ no_chdir => 1, wanted => sub {
	$file{ substr($_, length $dir) } = $_ if -f && /\.(\w+)$/ && $type{$1};
} }, $dir);
$file{'/chart.js'} = $chart // '';

sub bytes
{
	my ($name, $content) = @_;
	my @lines = unpack '(a16)*', $content;
	print "static const unsigned char $name\[] = {\n";
	print "\t", join(', ', map { $_ } unpack 'C*', $_), ",\n" for @lines;
	print "\t0};\n";
}

print "/* Made by embed.pl; not to be changed. */\n#include \"../serve.h\"\n\n";
my $n = 0;
my $table = '';
for my $path (sort keys %file)
{
	my $content = "/* Chart.js was not there when this was built. */\n";
	if ($file{$path} ne '')
	{
		open my $in, '<:raw', $file{$path} or die "$file{$path}: $!\n";
		local $/;
		$content = <$in>;
	}
	my $small;
	gzip(\$content => \$small, -Level => 9, -Time => 0, Minimal => 1) or die "gzip: $GzipError\n";
	my ($extension) = $path =~ /\.(\w+)$/;
	my $served = $path eq '/index.html' ? '/' : $path;
	bytes("plain_$n", $content);
	my $zip = length $small < length($content) * 0.9;
	bytes("gzip_$n", $small) if $zip;
	$table .= sprintf qq(\t{"%s", "%s", "\\"%s\\"", plain_%d, %d, %s, %d},\n), $served, $type{$extension},
		substr(sha1_hex($content), 0, 16), $n, length $content, ($zip ? "gzip_$n" : 'NULL'), ($zip ? length $small : 0);
	$n++;
}
print "\nconst Asset assets[] = {\n$table};\nconst int assets_count = $n;\n";
