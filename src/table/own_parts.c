/*
 * own_parts.c: what the extension has made of its tables stays as it is.
 *
 * PostgreSQL drops a table of an extension with the extension only; but columns,
 * constraints, indexes, triggers, policies and names are anyone's who owns the table.
 * What is written beneath the executor knows columns by their place, counters and
 * wake-ups live on triggers, tenants on row security: after such a change enqueue fails,
 * or nothing is said and something is wrong.  So EQ057 says it at the ALTER TABLE.
 * What others have added is theirs; and a superuser who sets allow_system_table_mods,
 * PostgreSQL's own switch for such work, may do anything.
 *
 * The parts are read out of the install script when the library is built.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "event_queue.h"
#include "table/own_parts.h"
#include "table/table.h"

static const struct
{
	const char *kind;
	const char *table;
	const char *name;
} parts[] = {
#include "table/own_parts.inc"
};

static void
refuse(const char *part)
{
	char *version = NULL;

	/* Of another version other parts are its own. */
	if (!eq_sql_is_current(&version) || version == NULL)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_OWN_PART), errmsg("cannot change %s", part),
		 errdetail("The extension event_queue has made it, and relies on it."),
		 errhint("What you have added can be changed.  For a repair, a superuser may"
				 " set allow_system_table_mods.")));
}

static bool
is_own_schema(const char *name)
{
	return name != NULL &&
		   (strcmp(name, EQ_SCHEMA) == 0 || strcmp(name, EQ_INTERNAL) == 0);
}

/* The qualified name of a relation in a schema of ours, or NULL. */
static char *
own_name(Oid relid)
{
	char *schema = OidIsValid(relid) ? get_namespace_name(get_rel_namespace(relid))
									 : NULL;

	return is_own_schema(schema) ? psprintf("%s.%s", schema, get_rel_name(relid))
								 : NULL;
}

/*
 * Partitions that were made later have triggers and policies of their parents: the
 * parent's name, or NULL.  A restore makes them anew.
 */
static char *
parent_of_partition(const char *name, bool restores)
{
	static const char *const parents[] = {
		EQ_SCHEMA ".event_store", EQ_SCHEMA ".job_history", EQ_SCHEMA ".audit_log"};

	for (int i = 0; name && !restores && i < lengthof(parents); i++)
	{
		int length = strlen(parents[i]);

		if (strncmp(name, parents[i], length) == 0 && name[length] == '_')
			return pstrdup(parents[i]);
	}
	return NULL;
}

/* Has the extension made it?  kind "": a constraint of whatever kind; name NULL: any. */
static bool
is_own(const char *table, const char *kind, const char *name)
{
	for (int i = 0; table && i < lengthof(parts); i++)
	{
		if (strcmp(parts[i].table, table) == 0 &&
			(kind[0] ? strcmp(parts[i].kind, kind) == 0
					 : strcmp(parts[i].kind, "constraint") == 0 ||
						   strcmp(parts[i].kind, "check") == 0) &&
			(name == NULL || strcmp(parts[i].name, name) == 0))
			return true;
	}
	return false;
}

static void
check_part(Oid relid, bool restores, const char *kind, const char *name)
{
	char *table = own_name(relid);

	if (is_own(table, kind, name) ||
		is_own(parent_of_partition(table, restores), kind, name))
		refuse(psprintf("%s \"%s\" of table \"%s\"",
						strcmp(kind, "always") == 0 ? "trigger"
						: kind[0]					? kind
													: "constraint",
						name, table));
}

static void
check_constraint(Oid relid, bool restores, const char *name)
{
#if PG_VERSION_NUM >= 180000
	/* NOT NULL is a constraint with a name, too. */
	Oid oid = OidIsValid(relid) ? get_relation_constraint_oid(relid, name, true)
								: InvalidOid;
	HeapTuple row = SearchSysCache1(CONSTROID, ObjectIdGetDatum(oid));
	char *column = NULL;

	if (HeapTupleIsValid(row))
	{
		if (((Form_pg_constraint) GETSTRUCT(row))->contype == CONSTRAINT_NOTNULL)
			column = get_attname(relid, extractNotNullColumn(row), true);
		ReleaseSysCache(row);
	}
	if (column)
		check_part(relid, restores, "column", column);
#endif
	check_part(relid, restores, "", name);
}

/* If it is an index of a table of ours, that the extension has made. */
static void
check_index(Oid relid, bool restores)
{
	char kind = get_rel_relkind(relid);
	Oid table = kind == RELKIND_INDEX || kind == RELKIND_PARTITIONED_INDEX
					? IndexGetRelation(relid, true)
					: InvalidOid;

	check_part(table, restores, "index", get_rel_name(relid));
	/* An index of a constraint has the constraint's name. */
	check_part(table, restores, "", get_rel_name(relid));
}

/* A table, view or sequence of the extension's gets another name or schema. */
static void
check_relation(Oid relid, bool restores)
{
	check_index(relid, restores);
	if (own_name(relid) && getExtensionOfObject(RelationRelationId, relid) ==
							   get_extension_oid(EQ_EXTENSION, true))
		refuse(psprintf("the name of \"%s\"", own_name(relid)));
}

/* EQ057 if the type is the extension's; users may have types in our schemas, too. */
static void
check_type(Oid type)
{
	if (OidIsValid(type) && getExtensionOfObject(TypeRelationId, type) ==
								get_extension_oid(EQ_EXTENSION, true))
		refuse(psprintf("type \"%s\"", format_type_be_qualified(type)));
}

static void
check_type_name(List *names)
{
	check_type(LookupTypeNameOid(NULL, makeTypeNameFromNameList(names), true));
}

static void
check_alter(Oid relid, AlterTableCmd *cmd, bool restores)
{
	char *table = own_name(relid);

	switch (cmd->subtype)
	{
		case AT_DropColumn:
		case AT_AlterColumnType:
		case AT_SetNotNull:
		case AT_DropNotNull:
		case AT_DropIdentity:
			check_part(relid, restores, "column", cmd->name);
			break;
		case AT_ColumnDefault:
			if (cmd->def == NULL) /* another one is the owner's choice */
				check_part(relid, restores, "column", cmd->name);
			break;
		case AT_DropConstraint:
			check_constraint(relid, restores, cmd->name);
			break;
		case AT_AlterConstraint:
#if PG_VERSION_NUM >= 180000
			check_constraint(relid, restores,
							 castNode(ATAlterConstraint, cmd->def)->conname);
#else
			check_constraint(relid, restores,
							 castNode(Constraint, cmd->def)->conname);
#endif
			break;
		case AT_EnableTrig:
			check_part(relid, restores, "always", cmd->name);
			break;
		case AT_DisableTrig:
		case AT_EnableReplicaTrig:
			check_part(relid, restores, "trigger", cmd->name);
			break;
		case AT_DisableTrigAll:
			/* pg_restore --disable-triggers: the store holds (store/activation.c). */
			if (restores)
				break;
			/* FALLTHROUGH */
		case AT_DisableTrigUser:
			refuse(psprintf("the triggers of table \"%s\"", table));
			break;
		case AT_DisableRowSecurity:
		case AT_ForceRowSecurity:
			refuse(psprintf("row security of table \"%s\"", table));
			break;
		case AT_SetUnLogged:
			refuse(psprintf("how table \"%s\" is logged", table));
			break;
		case AT_DetachPartition:
		{
			RangeVar *part = ((PartitionCmd *) cmd->def)->name;
			char *name = own_name(RangeVarGetRelid(part, NoLock, true));

			if (is_own(name, "table", NULL))
				refuse(psprintf("the parent of table \"%s\"", name));
			break;
		}
		default:
			break;
	}
}

static void
check_rename(RenameStmt *rename, bool restores)
{
	Oid relid = rename->relation ? RangeVarGetRelid(rename->relation, NoLock, true)
								 : InvalidOid;

	switch (rename->renameType)
	{
		case OBJECT_COLUMN:
			check_part(relid, restores, "column", rename->subname);
			break;
		case OBJECT_TABCONSTRAINT:
			check_constraint(relid, restores, rename->subname);
			break;
		case OBJECT_TRIGGER:
			check_part(relid, restores, "trigger", rename->subname);
			break;
		case OBJECT_POLICY:
			check_part(relid, restores, "policy", rename->subname);
			break;
		case OBJECT_TABLE:
		case OBJECT_VIEW:
		case OBJECT_SEQUENCE:
		case OBJECT_INDEX:
			if (OidIsValid(relid))
				check_relation(relid, restores);
			break;
		case OBJECT_ATTRIBUTE:
			check_type(get_rel_type_id(relid));
			break;
		case OBJECT_TYPE:
			check_type_name((List *) rename->object);
			break;
		case OBJECT_SCHEMA:
			if (is_own_schema(rename->subname))
				refuse(psprintf("the name of schema \"%s\"", rename->subname));
			break;
		default:
			break;
	}
}

static void
check_drop(DropStmt *drop, bool restores)
{
	ListCell *cell;

	if (drop->removeType != OBJECT_INDEX && drop->removeType != OBJECT_TRIGGER &&
		drop->removeType != OBJECT_POLICY)
		return;
	foreach (cell, drop->objects)
	{
		List *names = list_copy(castNode(List, lfirst(cell)));
		char *last = strVal(llast(names));
		Oid relid;

		/* Of a trigger or policy: its table, and its own name. */
		if (drop->removeType != OBJECT_INDEX)
			names = list_truncate(names, list_length(names) - 1);
		relid = RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);
		if (!OidIsValid(relid))
			continue;
		if (drop->removeType == OBJECT_INDEX)
			check_index(relid, restores);
		else
			check_part(relid, restores,
					   drop->removeType == OBJECT_TRIGGER ? "trigger" : "policy",
					   last);
	}
}

/*
 * Raises EQ057 if a utility statement changes or removes what the extension has made.
 * restores: is it of a session that runs a dump's script?
 */
void
eq_refuse_change_of_own(Node *stmt, bool restores)
{
	ListCell *cell;

	if (IsA(stmt, AlterTableStmt))
	{
		AlterTableStmt *alter = (AlterTableStmt *) stmt;
		Oid relid = RangeVarGetRelid(alter->relation, NoLock, true);
		char *table = own_name(relid);

		if (alter->objtype == OBJECT_TYPE)
			check_type(get_rel_type_id(relid));
		if (!is_own(table, "table", NULL) && !parent_of_partition(table, restores))
			return;
		foreach (cell, alter->cmds)
			check_alter(relid, lfirst_node(AlterTableCmd, cell), restores);
	}
	else if (IsA(stmt, RenameStmt))
		check_rename((RenameStmt *) stmt, restores);
	else if (IsA(stmt, DropStmt))
		check_drop((DropStmt *) stmt, restores);
	else if (IsA(stmt, AlterObjectSchemaStmt))
	{
		AlterObjectSchemaStmt *move = (AlterObjectSchemaStmt *) stmt;
		Oid relid = move->relation ? RangeVarGetRelid(move->relation, NoLock, true)
								   : InvalidOid;

		if (OidIsValid(relid))
			check_relation(relid, restores);
		else if (move->objectType == OBJECT_TYPE)
			check_type_name((List *) move->object);
	}
	else if (IsA(stmt, AlterPolicyStmt))
	{
		AlterPolicyStmt *policy = (AlterPolicyStmt *) stmt;

		check_part(RangeVarGetRelid(policy->table, NoLock, true), restores, "policy",
				   policy->policy_name);
	}
	else if (IsA(stmt, CreateTrigStmt) && ((CreateTrigStmt *) stmt)->replace)
	{
		CreateTrigStmt *trigger = (CreateTrigStmt *) stmt;

		check_part(RangeVarGetRelid(trigger->relation, NoLock, true), restores,
				   "trigger", trigger->trigname);
	}
}
