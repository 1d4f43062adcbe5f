# EventQueueCatalog.pm: what the extension has made in a database, one line a thing,
# sorted: for comparing a database that was upgraded with one where it was just created.
#
# Without OIDs.  Columns have their numbers, since C reads them by number: a gap that a
# dropped column leaves is a difference.
package EventQueueCatalog;
use strict;
use warnings;
use Exporter 'import';
our @EXPORT = qw(catalog differences);

my $query = <<'SQL';
WITH schemas AS (
	SELECT oid, nspname, nspacl FROM pg_namespace WHERE nspname IN ('event_queue', 'event_queue_internal')),
relations AS (
	SELECT c.*, c.oid::regclass::text AS name FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c', 'i', 'I')),
-- grants to PUBLIC and to the owner, without the names of roles
acls (kind, name, acl, owner) AS (
	SELECT 'schema', nspname, nspacl, 0::oid FROM schemas
	UNION ALL SELECT 'relation', name, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 'S' ELSE 'r' END::"char", relowner)), relowner
		FROM relations WHERE relkind NOT IN ('i', 'I', 'c')
	UNION ALL SELECT 'function', p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner
		FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace
	UNION ALL SELECT 'type', t.oid::regtype::text, coalesce(t.typacl, acldefault('T', t.typowner)), t.typowner
		FROM pg_type t JOIN schemas s ON s.oid = t.typnamespace WHERE t.typelem = 0)
SELECT translate(line, E'\n\r', '  ') COLLATE "C" FROM (
	SELECT concat_ws(' ', 'relation', r.name, r.relkind, r.relpersistence, 'options', coalesce(r.reloptions::text, '-'),
		'rls', r.relrowsecurity, r.relforcerowsecurity, 'replica', r.relreplident, 'parent',
		coalesce((SELECT string_agg(i.inhparent::regclass::text, ',') FROM pg_inherits i WHERE i.inhrelid = r.oid), '-'),
		coalesce(pg_get_expr(r.relpartbound, r.oid), '-')) AS line
	FROM relations r
	UNION ALL
	SELECT concat_ws(' ', 'column', r.name, lpad(a.attnum::text, 2, '0'), a.attname, format_type(a.atttypid, a.atttypmod),
		CASE WHEN a.attnotnull THEN 'NOT NULL' END, CASE WHEN a.attidentity <> '' THEN concat('IDENTITY ', a.attidentity) END,
		CASE WHEN a.attgenerated <> '' THEN concat('GENERATED ', a.attgenerated) END,
		'default', coalesce(pg_get_expr(d.adbin, d.adrelid), '-'), 'storage', a.attstorage, a.attcompression,
		'statistics', coalesce(nullif(a.attstattarget, -1)::text, '-'), coalesce(a.attcollation::regcollation::text, '-'))
	FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
	WHERE r.relkind NOT IN ('i', 'I')
	UNION ALL
	SELECT concat_ws(' ', 'view', name, pg_get_viewdef(oid)) FROM relations WHERE relkind = 'v'
	UNION ALL
	SELECT concat_ws(' ', 'index', i.indrelid::regclass, pg_get_indexdef(i.indexrelid), 'valid', i.indisvalid)
	FROM pg_index i JOIN relations r ON r.oid = i.indexrelid
	UNION ALL
	SELECT concat_ws(' ', 'sequence', r.name, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle,
		'owned by', coalesce((SELECT d.refobjid::regclass || '.' || d.refobjsubid FROM pg_depend d
			WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i')), '-'))
	FROM pg_sequence s JOIN relations r ON r.oid = s.seqrelid
	UNION ALL
	SELECT concat_ws(' ', 'constraint', c.conrelid::regclass, c.conname, c.convalidated, pg_get_constraintdef(c.oid))
	FROM pg_constraint c JOIN relations r ON r.oid = c.conrelid WHERE c.contype <> 'n'
	UNION ALL
	SELECT concat_ws(' ', 'trigger', t.tgenabled, pg_get_triggerdef(t.oid)) FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid
	WHERE NOT t.tgisinternal
	UNION ALL
	SELECT concat_ws(' ', 'rule', pg_get_ruledef(w.oid)) FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
	UNION ALL
	SELECT concat_ws(' ', 'policy', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive, p.polroles,
		pg_get_expr(p.polqual, p.polrelid), '/', pg_get_expr(p.polwithcheck, p.polrelid))
	FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
	UNION ALL
	SELECT concat_ws(' ', 'function', p.oid::regprocedure, p.prokind, '(' || pg_get_function_arguments(p.oid) || ')', 'returns',
		coalesce(pg_get_function_result(p.oid), '-'), l.lanname, 'volatile', p.provolatile, 'parallel', p.proparallel,
		'secdef', p.prosecdef, 'strict', p.proisstrict, 'leakproof', p.proleakproof, 'cost', p.procost, 'rows', p.prorows,
		'support', p.prosupport, 'config', coalesce(p.proconfig::text, '-'), 'link', coalesce(p.probin, '-'),
		CASE WHEN l.lanname = 'c' THEN p.prosrc ELSE md5(coalesce(p.prosrc, '') || coalesce(pg_get_function_sqlbody(p.oid), '')) END)
	FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
	UNION ALL
	SELECT concat_ws(' ', 'type', t.oid::regtype, t.typtype, (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e
		WHERE e.enumtypid = t.oid)) FROM pg_type t JOIN schemas s ON s.oid = t.typnamespace WHERE t.typelem = 0
	UNION ALL
	SELECT concat_ws(' ', 'grant', kind, name, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE 'owner' END, x.privilege_type)
	FROM acls, aclexplode(acl) x WHERE x.grantee = 0 OR x.grantee = owner
	UNION ALL
	SELECT concat_ws(' ', 'member', i.type, i.identity) FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass
		AND d.refobjid = e.oid AND d.deptype = 'e', pg_identify_object(d.classid, d.objid, d.objsubid) i WHERE e.extname = 'event_queue'
	UNION ALL
	SELECT concat_ws(' ', 'dumped', c.config::regclass, c.condition) FROM pg_extension e, unnest(e.extconfig, e.extcondition) c (config, condition)
	WHERE e.extname = 'event_queue'
	UNION ALL
	SELECT concat_ws(' ', 'extension', e.extname, e.extversion, e.extrelocatable) FROM pg_extension e WHERE e.extname = 'event_queue'
	UNION ALL
	SELECT concat_ws(' ', 'comment', i.type, i.identity, d.description) FROM pg_description d,
		pg_identify_object(d.classoid, d.objoid, d.objsubid) i
	WHERE i.identity ~ '^event_queue(_internal)?(\.|$)' OR i.identity ~ ' on event_queue(_internal)?\.'
) x ORDER BY 1
SQL

sub catalog
{
	my ($node, $db) = @_;
	return split /\n/, $node->safe_psql($db, "SET search_path = pg_catalog; $query");
}

# What stands in one list only: "- ..." in the first, "+ ..." in the second.
sub differences
{
	my ($first, $second) = @_;
	my %count;
	$count{$_}-- for @$first;
	$count{$_}++ for @$second;
	my @all = map { ($count{$_} < 0 ? '- ' : '+ ') . $_ } grep { $count{$_} != 0 } keys %count;
	return sort { substr($a, 2) cmp substr($b, 2) } @all;
}

1;
