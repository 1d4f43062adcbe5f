/*
 * on_table.c: rules on users' plain tables: create_rule(on_table => ...).
 *
 * Such a rule has row triggers of its own on the table.  They append one event for each
 * changed row, in the transaction of the change, of type table.RULE.inserted (updated,
 * deleted) and the reserved aggregate type "event_queue.table"; the rule's pattern is
 * table.RULE.*.  So a change meets its rule exactly once and in order, and all that works
 * for rules on events works here: retries, explain_rule, test_rule, backfills, traces.  (A
 * job in place of the event would save a row, but could not be explained or repeated.)
 *
 * The triggers are the only link between rule and table: they stay when the table or its
 * columns are renamed, go when it is dropped, and are dumped with it.  The creator of the
 * rule creates them with his own rights; a session that writes to the table needs none: the
 * event is appended without privilege checks, for the tenant that the row names, which must
 * be one that the session may act for.
 *
 * Called by create_rule, by writes to such a table, and by the trigger of table rule that
 * removes the triggers of a dropped rule.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/partition.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "common/argument.h"
#include "common/function.h"
#include "common/json.h"
#include "common/try.h"
#include "compat.h"
#include "event_queue.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_table_change);

/* Names of triggers: this and the rule's number. */
#define TRIGGER_PREFIX "event_queue_rule_"

/* Arguments of the triggers. */
enum
{
	ARG_RULE,
	ARG_TENANT_COLUMN, /* or '' */
	ARG_COLUMNS, /* when_changed, as it was given: tells one trigger from another */
	N_ARGS
};

/* Longest part of an aggregate's id that shows the row's key. */
#define MAX_KEY 200

typedef struct Operation
{
	const char *name; /* in on_change */
	const char *verb; /* in the type of the event */
} Operation;

static const Operation operations[] = {
	{"insert", "inserted"}, {"update", "updated"}, {"delete", "deleted"}};

char *
eq_qualified_table(Oid relid)
{
	return eq_stored_name(get_namespace_name(get_rel_namespace(relid)),
						  get_rel_name(relid));
}

/* The operations that a list names, in one order; all for NULL.  EQ009 else. */
Datum
eq_check_on_change(ArrayType *given)
{
	Datum *names = NULL;
	bool *nulls = NULL;
	int n = 0;
	Datum found[lengthof(operations)];
	int n_found = 0;
	int n_known = 0;

	if (given)
		deconstruct_array(given, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls,
						  &n);
	for (int op = 0; op < lengthof(operations); op++)
	{
		int times = 0;

		for (int i = 0; i < n; i++)
			times += !nulls[i] && eq_text_is(names[i], operations[op].name);
		n_known += times;
		if (given == NULL || times > 0)
			found[n_found++] = CStringGetTextDatum(operations[op].name);
	}
	if (n_found == 0 || n_known != n)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("on_change must be a list of insert, update and "
							   "delete"),
						errhint("TRUNCATE fires no rules.")));
	return PointerGetDatum(
		construct_array(found, n_found, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Is the column computed when it is read?  Triggers do not see its value. */
static bool
is_virtual(Oid relid, AttrNumber attnum)
{
	HeapTuple tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid),
									  Int16GetDatum(attnum));
	bool found = HeapTupleIsValid(tuple) &&
				 EQ_IS_VIRTUAL((Form_pg_attribute) GETSTRUCT(tuple));

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return found;
}

static AttrNumber
column_of(Oid relid, const char *column)
{
	AttrNumber attnum = get_attnum(relid, column);

	if (attnum <= 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column \"%s\" of table %s does not exist", column,
							   eq_qualified_table(relid))));
	if (is_virtual(relid, attnum))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_TABLE),
				 errmsg("column \"%s\" of table %s is a virtual generated column",
						column, eq_qualified_table(relid)),
				 errhint("Name the columns that it is computed from, or make it "
						 "STORED.")));
	return attnum;
}

/* EQ055 unless rules can be made on the relation; 42501 without the right to read it. */
void
eq_check_on_table(Oid relid, const char *tenant_column)
{
	char kind = get_rel_relkind(relid);
	const char *why = NULL;
	char *schema;

	if (kind == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	schema = get_namespace_name(get_rel_namespace(relid));
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		why = "It is no table.";
	else if (get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		why = "It is a temporary table.";
	else if (strcmp(schema, EQ_SCHEMA) == 0 ||
			 strcmp(schema, EQ_SCHEMA "_internal") == 0 ||
			 IsCatalogNamespace(get_rel_namespace(relid)))
		why = "It is a table of the extension or of the system.";
	else if (get_rel_relispartition(relid))
		why = "It is a partition: the rule belongs on the whole table.";
	if (why)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_TABLE),
				 errmsg("cannot create a rule on %s", eq_qualified_table(relid)),
				 errdetail_internal("%s", why)));
	/* Conditions and templates of the rule see its rows. */
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(kind),
					   get_rel_name(relid));
	if (tenant_column)
		(void) column_of(relid, tenant_column);
}

/*
 * Appends the comparison of a column's old and new value: as text, if the type has no
 * equality, or one that IS DISTINCT FROM does not find by the pinned search_path, as that
 * of a type of another extension.
 */
static void
append_comparison(StringInfo when, Oid relid, const char *column)
{
	Oid type = get_atttype(relid, column_of(relid, column));
	Oid equality = lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr;
	const char *as = OidIsValid(equality) &&
							 get_func_namespace(get_opcode(equality)) ==
								 PG_CATALOG_NAMESPACE
						 ? ""
						 : "::pg_catalog.text";

	appendStringInfo(when, "%sOLD.%s%s IS DISTINCT FROM NEW.%s%s",
					 when->len > 0 ? " OR " : "", quote_identifier(column), as,
					 quote_identifier(column), as);
}

/*
 * Is the trigger there, as it would be made now?  always: it also fires for what
 * replication writes, as the table's owner wants it (ENABLE ALWAYS TRIGGER).
 */
static bool
trigger_is_there(Oid relid, const char *name, const char *const *arguments,
				 bool *always)
{
	Relation rel = table_open(relid, AccessShareLock);
	bool found = false;

	*always = false;
	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger *trigger = &rel->trigdesc->triggers[i];

		if (strcmp(trigger->tgname, name) != 0 || trigger->tgnargs != N_ARGS)
			continue;
		*always = trigger->tgenabled == TRIGGER_FIRES_ALWAYS;
		if (!*always && trigger->tgenabled != TRIGGER_FIRES_ON_ORIGIN)
			continue;
		found = true;
		for (int arg = 0; arg < N_ARGS; arg++)
			found = found && strcmp(trigger->tgargs[arg], arguments[arg]) == 0;
	}
	table_close(rel, AccessShareLock);
	return found;
}

static void
make_trigger(Oid relid, const char *name, const char *operation, const char *when,
			 const char *const *arguments)
{
	StringInfoData sql;
	EqSpi spi;

	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "CREATE OR REPLACE TRIGGER %s AFTER %s ON %s FOR EACH ROW",
					 quote_identifier(name), operation, eq_qualified_table(relid));
	if (when[0] != '\0')
		appendStringInfo(&sql, " WHEN (%s)", when);
	appendStringInfo(&sql, " EXECUTE FUNCTION event_queue.table_change(%s, %s, %s)",
					 quote_literal_cstr(arguments[ARG_RULE]),
					 quote_literal_cstr(arguments[ARG_TENANT_COLUMN]),
					 quote_literal_cstr(arguments[ARG_COLUMNS]));
	/* With the caller's rights: who may not make triggers there makes no rule. */
	eq_spi_begin(&spi, GetUserId(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(sql.data, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not create trigger \"%s\"", name);
	eq_spi_end(&spi);
}

/* Has a trigger that was made anew fire for what replication writes, as the old one. */
static void
enable_always(Oid relid, const char *name)
{
	char *sql = psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
						 eq_qualified_table(relid), quote_identifier(name));
	EqSpi spi;

	/* The caller may have no more than the right to make triggers. */
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not enable trigger \"%s\"", name);
	eq_spi_end(&spi);
}

/* Removes the rule's triggers but those of a table (0: none) that are named. */
static void
drop_other_triggers(int32 rule_id, Oid relid, Datum names)
{
	static EqStatement drop = {
		.sql = "SELECT event_queue_internal.drop_table_triggers($1, $2, $3)",
		.n_arguments = 3,
		.types = {INT4OID, OIDOID, TEXTARRAYOID}};
	Datum values[3] = {Int32GetDatum(rule_id), ObjectIdGetDatum(relid), names};

	eq_run_as_owner(&drop, values, NULL);
}

/*
 * Gives a rule the triggers that it needs, and no others; relid 0: it is a rule on events.
 * What is there already is left, without a lock.
 */
void
eq_make_table_triggers(int32 rule_id, Oid relid, Datum on_change, ArrayType *columns,
					   const char *tenant_column)
{
	Datum *names;
	int n = 0;
	Datum made[lengthof(operations)];
	int n_made = 0;
	StringInfoData when;
	StringInfoData listed;
	char *number = psprintf("%d", rule_id);
	const char *arguments[N_ARGS];

	initStringInfo(&when);
	initStringInfo(&listed);
	if (OidIsValid(relid) && columns)
	{
		deconstruct_array(columns, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL,
						  &n);
		for (int i = 0; i < n; i++)
		{
			char *column = TextDatumGetCString(names[i]);

			append_comparison(&when, relid, column);
			appendStringInfo(&listed, "%s%s", i > 0 ? "," : "",
							 quote_identifier(column));
		}
	}
	arguments[ARG_RULE] = number;
	arguments[ARG_TENANT_COLUMN] = tenant_column ? tenant_column : "";
	arguments[ARG_COLUMNS] = listed.data;
	if (OidIsValid(relid))
		deconstruct_array(DatumGetArrayTypeP(on_change), TEXTOID, -1, false,
						  TYPALIGN_INT, &names, NULL, &n);
	else
		n = 0;
	for (int i = 0; i < n; i++)
	{
		char *operation = TextDatumGetCString(names[i]);
		char *name = psprintf(TRIGGER_PREFIX "%d_%s", rule_id, operation);

		bool always;

		made[n_made++] = CStringGetTextDatum(name);
		if (trigger_is_there(relid, name, arguments, &always))
			continue;
		make_trigger(relid, name, operation,
					 strcmp(operation, "update") == 0 ? when.data : "", arguments);
		if (always)
			enable_always(relid, name);
	}
	drop_other_triggers(rule_id, relid,
						PointerGetDatum(construct_array(made, n_made, TEXTOID, -1,
														false, TYPALIGN_INT)));
}

/* The primary key's columns of a row, as an object; NULL if there is no key. */
static Jsonb *
key_of(Relation rel, Jsonb *row)
{
	JsonbParseState *state = NULL;
	Bitmapset *key = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	int column = -1;

	if (key == NULL)
		return NULL;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	while ((column = bms_next_member(key, column)) >= 0)
	{
		AttrNumber attnum = column + FirstLowInvalidHeapAttributeNumber;
		char *name = NameStr(
			TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attname);
		JsonbValue buffer;
		JsonbValue *value = eq_json_member(row, name, &buffer);

		if (value)
			eq_json_add_jsonb(&state, name, JsonbValueToJsonb(value));
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * The aggregate's id: the rule and the row.  Who changes the same row waits for the row's
 * lock before this one; without a key each change is an aggregate of its own.
 */
static char *
aggregate_id(int32 rule_id, Jsonb *key)
{
	char *text;

	if (key == NULL)
	{
		pg_uuid_t uuid;

		eq_make_uuid_v7(&uuid, GetCurrentTimestamp());
		text = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&uuid)));
	}
	else
	{
		text = JsonbToCString(NULL, &key->root, VARSIZE(key));
		if (strlen(text) > MAX_KEY)
			text = psprintf(
				UINT64_FORMAT,
				hash_bytes_extended((unsigned char *) text, strlen(text), 0));
	}
	return psprintf("%d/%s", rule_id, text);
}

/* Names of the members that differ; rows of one table have the same ones. */
static Jsonb *
changed_names(Jsonb *before, Jsonb *now)
{
	JsonbParseState *state = NULL;
	JsonbIterator *it = JsonbIteratorInit(&now->root);
	JsonbIteratorToken token;
	JsonbValue name;
	JsonbValue value;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	(void) JsonbIteratorNext(&it, &value, true);
	while ((token = JsonbIteratorNext(&it, &name, true)) == WJB_KEY)
	{
		Jsonb *sides[2];
		JsonbValue buffer;
		JsonbValue *other = getKeyJsonValueFromContainer(
			&before->root, name.val.string.val, name.val.string.len, &buffer);

		(void) JsonbIteratorNext(&it, &value, true);
		sides[0] = JsonbValueToJsonb(&value);
		sides[1] = other ? JsonbValueToJsonb(other) : NULL;
		if (sides[1] == NULL ||
			compareJsonbContainers(&sides[0]->root, &sides[1]->root) != 0)
			pushJsonbValue(&state, WJB_ELEM, &name);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/* Is the name an element of the array? */
static bool
has_member(Jsonb *names, const char *name)
{
	JsonbValue wanted = {.type = jbvString};

	wanted.val.string.val = unconstify(char *, name);
	wanted.val.string.len = strlen(name);
	return findJsonbValueFromContainer(&names->root, JB_FARRAY, &wanted) != NULL;
}

/* Adds a row; if there is no room for it, sets *left_out to its name instead. */
static void
add_row(JsonbParseState **state, const char *name, Jsonb *row, int64 *room,
		const char **left_out)
{
	if (row == NULL)
		return;
	if (VARSIZE(row) > *room)
	{
		*left_out = name;
		return;
	}
	*room -= VARSIZE(row);
	eq_json_add_jsonb(state, name, row);
}

/*
 * The event's data.  A row that is too large for an event must not keep its writer from
 * writing it: it is left out, the old one first.
 */
static Jsonb *
change_data(Relation rel, const char *operation, Jsonb *key, Jsonb *before,
			Jsonb *now, Jsonb *changed, const char *left_out)
{
	JsonbParseState *state = NULL;
	int64 room = (int64) eq_max_payload_kb * 1024 - 8 * 1024;
	Oid root = RelationGetRelid(rel);

	if (rel->rd_rel->relispartition)
		root = llast_oid(get_partition_ancestors(root));
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_string(&state, "table", eq_qualified_table(root), 0);
	eq_json_add_string(&state, "operation", operation, 0);
	add_row(&state, "key", key, &room, &left_out);
	add_row(&state, "changed", changed, &room, &left_out);
	add_row(&state, "new", now, &room, &left_out);
	add_row(&state, "old", before, &room, &left_out);
	if (left_out)
		eq_json_add_string(&state, "left_out", left_out, 0);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Returns the tenant of a change, by a column of the row or of the session. */
static const char *
tenant_of(Relation rel, const char *column, Jsonb *row)
{
	JsonbValue buffer;
	JsonbValue *value;

	if (column[0] == '\0')
		return eq_resolve_tenant(NULL);
	value = eq_json_member(row, column, &buffer);
	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_TABLE),
				 errmsg("column \"%s\" of table %s, which names the tenant for a "
						"rule, does not exist",
						column, eq_qualified_table(RelationGetRelid(rel))),
				 errhint("It was renamed or dropped: create the rule again with "
						 "or_replace => true and its new name.")));
	if (value->type == jbvNull)
		return eq_resolve_tenant(NULL);
	if (value->type == jbvString)
		return eq_resolve_tenant(eq_json_string(value));
	{
		Jsonb *json = JsonbValueToJsonb(value);

		return eq_resolve_tenant(JsonbToCString(NULL, &json->root, VARSIZE(json)));
	}
}

/* The row trigger. */
Datum
eq_table_change(PG_FUNCTION_ARGS)
{
	TriggerData *change = (TriggerData *) fcinfo->context;
	bool inserts;
	bool deletes;
	const Operation *operation;
	TupleDesc desc;
	Jsonb *before;
	Jsonb *now;
	Jsonb *changed = NULL;
	Jsonb *key;
	const char *left_out = NULL; /* row or column that is not in the event */
	const char *tenant;
	EqAggregate aggregate = {.type = EQ_TABLE_AGGREGATE, .expected = EQ_EXPECT_ANY};
	EqEvent event = {.aggregate = &aggregate};
	char **arguments;
	int32 rule_id;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(change->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(change->tg_event) ||
		change->tg_trigger->tgnargs != N_ARGS)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("table_change: not called by a trigger of create_rule"),
				 errhint("create_rule with on_table creates the trigger.")));
	/* Rows that a dump brings are no changes: their events are in the dump. */
	if (eq_in_restore())
		return PointerGetDatum(NULL);
	arguments = change->tg_trigger->tgargs;
	rule_id = pg_strtoint32(arguments[ARG_RULE]);
	desc = RelationGetDescr(change->tg_relation);
	inserts = TRIGGER_FIRED_BY_INSERT(change->tg_event);
	deletes = TRIGGER_FIRED_BY_DELETE(change->tg_event);
	operation = &operations[inserts ? 0 : deletes ? 2 : 1];
	before = eq_row_as_json(inserts ? NULL : change->tg_trigtuple, desc, &left_out);
	now = eq_row_as_json(deletes   ? NULL
						 : inserts ? change->tg_trigtuple
								   : change->tg_newtuple,
						 desc, &left_out);
	if (before && now)
	{
		changed = changed_names(before, now);
		if (JB_ROOT_COUNT(changed) == 0 && left_out == NULL)
			return PointerGetDatum(NULL);
	}
	tenant = tenant_of(change->tg_relation, arguments[ARG_TENANT_COLUMN],
					   now ? now : before);
	/* A row that goes from one tenant to another: what it was is not for the other. */
	if (changed && has_member(changed, arguments[ARG_TENANT_COLUMN]))
	{
		before = NULL;
		left_out = "old";
	}
	key = key_of(change->tg_relation, now ? now : before);
	aggregate.id = aggregate_id(rule_id, key);
	event.type = psprintf("table.%d.%s", rule_id, operation->verb);
	event.data = change_data(change->tg_relation, operation->name, key, before, now,
							 changed, left_out);
	event.metadata = eq_change_metadata();
	eq_append_events(tenant, &aggregate, 1, &event, 1);
	return PointerGetDatum(NULL);
}
