/*
 * tenant.sql: decides which tenant a session acts for.
 *
 * A role may be bound to one tenant (grant_producer(role, tenant) and so on); then nothing
 * that it sets or passes reaches rows of other tenants.  An unbound role is trusted with
 * all tenants: the setting event_queue.tenant narrows its session to one, and without the
 * setting each call names its own.
 */

CREATE TABLE event_queue_internal.tenant_role (
	role		regrole PRIMARY KEY,	-- by OID: a rename changes nothing; dumped by name
	tenant_id	text NOT NULL
);
COMMENT ON TABLE event_queue_internal.tenant_role IS
'Roles that are bound to one tenant; members of such a role are bound too. Written by the grant functions.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON event_queue_internal.tenant_role
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
-- Not of dropped roles: the OID may be another role's where the dump is restored.
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.tenant_role', 'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = role)');

/*
 * refuse_bound: statement trigger on what all tenants share (queues, handlers, rules,
 * ...).  A role that is bound to one changes none of it, though it be a member of an
 * admin: EQ048.
 */
CREATE FUNCTION event_queue_internal.refuse_bound() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_refuse_bound';
COMMENT ON FUNCTION event_queue_internal.refuse_bound() IS
'Internal. Trigger: refuses a role that is bound to a tenant to change what all tenants share (EQ048).';

CREATE FUNCTION event_queue_internal.require_unbound() RETURNS void
LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'eq_require_unbound_sql';
COMMENT ON FUNCTION event_queue_internal.require_unbound() IS
'Internal. EQ048 if the session is bound to a tenant by its role: for what would otherwise lock, or tell of, other tenants'' rows first.';

/*
 * current_tenant: the tenant that the session is confined to, or NULL.
 * Errors: EQ047 if the setting contradicts the role's binding.
 * Example:
 *	SELECT event_queue.current_tenant();	-- NULL: the session acts for all tenants
 */
CREATE FUNCTION current_tenant() RETURNS text
LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_current_tenant';
COMMENT ON FUNCTION current_tenant() IS
'The tenant this session is confined to, by its role or by the setting event_queue.tenant; NULL if it is confined to none.';

/*
 * resolve_tenant: the tenant that a call acts for.
 * Result: the argument, else the session's tenant, else 'default'.
 * Errors: EQ003 if the argument is not the tenant that the session is confined
 * to; EQ004 if event_queue.require_tenant is on and there is none.
 * Example:
 *	SELECT event_queue.resolve_tenant('acme');
 */
CREATE FUNCTION resolve_tenant(tenant_id text DEFAULT NULL) RETURNS text
LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_resolve_tenant_sql';
COMMENT ON FUNCTION resolve_tenant(text) IS
'The tenant a call acts for: the argument, else the session''s tenant, else "default". EQ003 if it is not the session''s, EQ004 if one is required and none is given.';

/*
 * tenant_visible: the row security rule of every table with a tenant_id.
 * Example:
 *	CREATE TABLE note (note_id int, tenant_id text);
 *	ALTER TABLE note ENABLE ROW LEVEL SECURITY;
 *	CREATE POLICY own_tenant ON note USING (event_queue.tenant_visible(tenant_id));
 */
CREATE FUNCTION tenant_visible(tenant_id text) RETURNS boolean
LANGUAGE C STABLE LEAKPROOF PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_tenant_visible';
COMMENT ON FUNCTION tenant_visible(text) IS
'True if the session may see rows of this tenant; the row security policies of all tables use it.';

/*
 * is_unbound: false if a role of this session is bound to a tenant: figures that all tenants have
 * together are not for it.
 */
CREATE FUNCTION event_queue_internal.is_unbound() RETURNS boolean
LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_is_unbound';
COMMENT ON FUNCTION event_queue_internal.is_unbound() IS 'For views. Whether no role of this session is bound to a tenant.';

ALTER TABLE event_queue_internal.tenant_role ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.tenant_role USING (tenant_visible(tenant_id));
