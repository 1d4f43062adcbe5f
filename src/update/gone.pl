#!/usr/bin/perl
# gone.pl FILE...: prints EQ_GONE(symbol) for each C function that an SQL file names and
# no C file has (gone.c).
use strict;
use warnings;

my (%has, %named);
while (<>)
{
	$has{$1} = 1 if /^(?:PG_FUNCTION_INFO_V1|EQ_FUNCTION_OF_ALL_VERSIONS)\((\w+)\)/;
	$named{$1} = 1 if /'MODULE_PATHNAME',\s*'(\w+)'/;
}
print "EQ_GONE($_);\n" for grep { !$has{$_} } sort keys %named;
