/*
 * own_parts.c: what the extension has made of its tables stays as it is.
 *
 * PostgreSQL drops a table of an extension with the extension only; but columns,
 * constraints, indexes, triggers, policies and names are anyone's who owns the table.
 * What is written beneath the executor knows columns by their place, counters and
 * wake-ups live on triggers, tenants on row security: after such a change enqueue fails,
 * or nothing is said and something is wrong.  So EQ057 says it at the ALTER TABLE.
 * Functions, views, types and sequences likewise: a view that is not security_invoker
 * shows the rows of all tenants, a function with another search_path calls what a user
 * has made, positions of a sequence with a cache are given out of order, and what is no
 * member of the extension is not in a dump.
 *
 * What others have added is theirs, and so is what only costs or saves time (COST,
 * fillfactor, statistics), comments and rights.  A superuser who sets
 * allow_system_table_mods, PostgreSQL's own switch for such work, may do anything.
 *
 * The parts of tables are read out of the install script when the library is built; that
 * other objects are the extension's, the catalog says.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "event_queue.h"
#include "table/own_members.h"
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

LocalTransactionId eq_guard_open_in = InvalidLocalTransactionId;

/*
 * A table that holds events beside event_store: what is dropped, moved or renamed is lost
 * to all readers, past the guard that lets nobody delete an event.  Not what a restore
 * does, or our functions that archive (store/guard.c).
 */
static bool
holds_events(Oid relid, bool restores)
{
	char *name = eq_own_name(relid);

	return name && !restores && eq_guard_open_in != EQ_MY_LXID &&
		   strncmp(name, EQ_SCHEMA ".event_store_",
				   strlen(EQ_SCHEMA ".event_store_")) == 0 &&
		   get_rel_relkind(relid) == RELKIND_RELATION && has_superclass(relid);
}

static void
check_event_table(Oid relid, bool restores)
{
	if (holds_events(relid, restores))
		eq_refuse_own(
			psprintf("table \"%s\", which holds events", eq_own_name(relid)));
}

/* EQ057 for a key of a table that holds events: append looks for it by its name. */
static void
check_event_key(Oid table, bool restores, const char *name)
{
	static const char *const keys[] = {"pkey", "aggregate_key", "id_key"};

	for (int i = 0; OidIsValid(table) && i < lengthof(keys); i++)
	{
		if (strcmp(name, psprintf("%s_%s", get_rel_name(table), keys[i])) == 0 &&
			holds_events(table, restores))
			eq_refuse_own(
				psprintf("key \"%s\" of table \"%s\"", name, eq_own_name(table)));
	}
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
	char *table = eq_own_name(relid);

	if (is_own(table, kind, name) ||
		is_own(parent_of_partition(table, restores), kind, name))
		eq_refuse_own(psprintf("%s \"%s\" of table \"%s\"",
							   strcmp(kind, "always") == 0 ? "trigger"
							   : kind[0]				   ? kind
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
	check_event_key(relid, restores, name);
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
	if (OidIsValid(table))
		check_event_key(table, restores, get_rel_name(relid));
}

/* A table, view or sequence of the extension's gets another name or schema. */
static void
check_relation(Oid relid, bool restores)
{
	check_index(relid, restores);
	check_event_table(relid, restores);
	if (eq_is_own_member(RelationRelationId, relid))
		eq_refuse_own(psprintf("the name of \"%s\"", eq_own_name(relid)));
}

/* EQ057 for DEPENDS ON EXTENSION: the object would be dropped with that extension. */
static void
check_depends(AlterObjectDependsStmt *depends, bool restores)
{
	Oid relid = depends->relation ? RangeVarGetRelid(depends->relation, NoLock, true)
								  : InvalidOid;

	if (depends->remove)
		return;
	if (depends->objectType == OBJECT_TRIGGER)
		check_part(relid, restores, "trigger",
				   strVal(llast(castNode(List, depends->object))));
	else if (OidIsValid(relid))
		check_index(relid, restores);
	else if (depends->object && IsA(depends->object, ObjectWithArgs))
		eq_check_own_function(depends->objectType, depends->object);
}

/*
 * EQ057 if a publication could not tell rows of the table apart: each UPDATE and DELETE of
 * it would fail.  What identifies rows must not be an index that its owner may drop.
 */
static void
check_replica_identity(Oid relid, ReplicaIdentityStmt *identity)
{
	Oid key = InvalidOid;
	char *index;

	(void) get_primary_key_attnos(relid, false, &key);
	index = OidIsValid(key) ? get_rel_name(get_constraint_index(key)) : NULL;
	if (identity->identity_type == REPLICA_IDENTITY_NOTHING ||
		(identity->identity_type == REPLICA_IDENTITY_DEFAULT && index == NULL) ||
		(identity->identity_type == REPLICA_IDENTITY_INDEX &&
		 (index == NULL || strcmp(identity->name, index) != 0)))
		eq_refuse_own(
			psprintf("the replica identity of table \"%s\"", eq_own_name(relid)));
}

static void
check_alter(Oid relid, AlterTableCmd *cmd, bool restores)
{
	char *table = eq_own_name(relid);

	switch (cmd->subtype)
	{
		case AT_DropColumn:
		case AT_AlterColumnType:
		case AT_SetNotNull:
		case AT_DropNotNull:
		case AT_DropIdentity:
			check_part(relid, restores, "column", cmd->name);
			break;
		case AT_SetIdentity:
		{
			ListCell *cell;

			foreach (cell, castNode(List, cmd->def))
			{
				if (strcmp(lfirst_node(DefElem, cell)->defname, "restart") != 0)
					check_part(relid, restores, "column", cmd->name);
			}
			break;
		}
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
			eq_refuse_own(psprintf("the triggers of table \"%s\"", table));
			break;
		case AT_DisableRowSecurity:
		case AT_ForceRowSecurity:
			eq_refuse_own(psprintf("row security of table \"%s\"", table));
			break;
		case AT_SetUnLogged:
			eq_refuse_own(psprintf("how table \"%s\" is logged", table));
			break;
		case AT_ReplicaIdentity:
			check_replica_identity(relid, castNode(ReplicaIdentityStmt, cmd->def));
			break;
		case AT_AddInherit:
		{
			char *parent = eq_own_name(
				RangeVarGetRelid((RangeVar *) cmd->def, NoLock, true));

			/* What is done to the columns of a parent is done to those of its children. */
			if (!is_own(parent, "table", NULL))
				eq_refuse_own(psprintf("the parent of table \"%s\"", table));
			break;
		}
		case AT_DropInherit:
			check_event_table(relid, restores);
			break;
		case AT_AddOf:
			eq_refuse_own(psprintf("the type of table \"%s\"", table));
			break;
		case AT_DetachPartition:
		{
			RangeVar *part = ((PartitionCmd *) cmd->def)->name;
			char *name = eq_own_name(RangeVarGetRelid(part, NoLock, true));

			if (is_own(name, "table", NULL))
				eq_refuse_own(psprintf("the parent of table \"%s\"", name));
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
			eq_check_own_view(relid);
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
			eq_check_own_type(get_rel_type_id(relid));
			break;
		case OBJECT_TYPE:
			eq_check_own_type_name((List *) rename->object);
			break;
		case OBJECT_FUNCTION:
		case OBJECT_PROCEDURE:
		case OBJECT_ROUTINE:
			eq_check_own_function(rename->renameType, rename->object);
			break;
		case OBJECT_SCHEMA:
			if (eq_is_own_schema(rename->subname))
				eq_refuse_own(
					psprintf("the name of schema \"%s\"", rename->subname));
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
		drop->removeType != OBJECT_POLICY && drop->removeType != OBJECT_TABLE)
		return;
	foreach (cell, drop->objects)
	{
		List *names = list_copy(castNode(List, lfirst(cell)));
		char *last = strVal(llast(names));
		Oid relid;

		/* Of a trigger or policy: its table, and its own name. */
		if (drop->removeType == OBJECT_TRIGGER || drop->removeType == OBJECT_POLICY)
			names = list_truncate(names, list_length(names) - 1);
		relid = RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);
		if (!OidIsValid(relid))
			continue;
		if (drop->removeType == OBJECT_INDEX)
			check_index(relid, restores);
		else if (drop->removeType == OBJECT_TABLE)
			check_event_table(relid, restores);
		else
			check_part(relid, restores,
					   drop->removeType == OBJECT_TRIGGER ? "trigger" : "policy",
					   last);
	}
}

/* ALTER TABLE of a view or sequence, and what is the same for all relations. */
static void
check_alter_relation(Oid relid, AlterTableCmd *cmd)
{
	switch (cmd->subtype)
	{
		case AT_ChangeOwner:
			eq_check_new_owner(RelationRelationId, relid, cmd->newowner);
			break;
		case AT_SetRelOptions:
		case AT_ResetRelOptions:
		case AT_ReplaceRelOptions:
			eq_check_own_view(relid);
			break;
		case AT_SetUnLogged:
			if (get_rel_relkind(relid) == RELKIND_SEQUENCE &&
				eq_is_own_member(RelationRelationId, relid))
				eq_refuse_own(
					psprintf("how sequence \"%s\" is logged", eq_own_name(relid)));
			break;
		default:
			break;
	}
}

/* EQ057 if a table of ours is to be a partition of someone else's. */
static void
check_attach(const char *parent, AlterTableCmd *cmd)
{
	char *part;

	if (cmd->subtype != AT_AttachPartition || is_own(parent, "table", NULL))
		return;
	part = eq_own_name(
		RangeVarGetRelid(((PartitionCmd *) cmd->def)->name, NoLock, true));
	if (is_own(part, "table", NULL) || parent_of_partition(part, false))
		eq_refuse_own(psprintf("the parent of table \"%s\"", part));
}

static void
check_alter_table(AlterTableStmt *alter, bool restores)
{
	Oid relid = RangeVarGetRelid(alter->relation, NoLock, true);
	char *table = eq_own_name(relid);
	ListCell *cell;

	foreach (cell, alter->cmds)
		check_attach(table, lfirst_node(AlterTableCmd, cell));
	if (table == NULL)
		return;
	if (alter->objtype == OBJECT_TYPE)
		eq_check_own_type(get_rel_type_id(relid));
	foreach (cell, alter->cmds)
	{
		check_alter_relation(relid, lfirst_node(AlterTableCmd, cell));
		if (is_own(table, "table", NULL) || parent_of_partition(table, restores))
			check_alter(relid, lfirst_node(AlterTableCmd, cell), restores);
	}
}

/*
 * Raises EQ057 if a utility statement changes or removes what the extension has made.
 * restores: is it of a session that runs a dump's script?
 */
void
eq_refuse_change_of_own(Node *stmt, bool restores)
{
	if (IsA(stmt, AlterTableStmt))
		check_alter_table((AlterTableStmt *) stmt, restores);
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
			eq_check_own_type_name((List *) move->object);
		else if (move->object && IsA(move->object, ObjectWithArgs))
			eq_check_own_function(move->objectType, move->object);
	}
	else if (IsA(stmt, AlterFunctionStmt))
		eq_check_alter_function((AlterFunctionStmt *) stmt);
	else if (IsA(stmt, CreateFunctionStmt) && ((CreateFunctionStmt *) stmt)->replace)
		eq_check_replace_function((CreateFunctionStmt *) stmt);
	else if (IsA(stmt, ViewStmt) && ((ViewStmt *) stmt)->replace)
		eq_check_replace_view((ViewStmt *) stmt);
	else if (IsA(stmt, RuleStmt) && ((RuleStmt *) stmt)->event == CMD_SELECT)
		eq_check_own_view(
			RangeVarGetRelid(((RuleStmt *) stmt)->relation, NoLock, true));
	else if (IsA(stmt, AlterOwnerStmt))
		eq_check_alter_owner((AlterOwnerStmt *) stmt);
	else if (IsA(stmt, AlterSeqStmt))
		eq_check_own_sequence(
			RangeVarGetRelid(((AlterSeqStmt *) stmt)->sequence, NoLock, true),
			((AlterSeqStmt *) stmt)->options);
	else if (IsA(stmt, AlterObjectDependsStmt))
		check_depends((AlterObjectDependsStmt *) stmt, restores);
	else if (IsA(stmt, AlterExtensionContentsStmt))
	{
		if (strcmp(((AlterExtensionContentsStmt *) stmt)->extname, EQ_EXTENSION) ==
			0)
			eq_refuse_own("what belongs to extension \"" EQ_EXTENSION "\"");
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
