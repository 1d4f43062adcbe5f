/*
 * refuse.c: refuses triggers, rules, policies and constraints that would have no effect.
 *
 * Events, jobs, dead letters, history and snapshots are written beneath the executor:
 * triggers, rules and policies of users would not run, CHECKs, NOT NULL, defaults and
 * deferred constraints would not be enforced, columns whose type was changed would be
 * written with the old one, rows of children would not be found, and a row that a foreign
 * key refers to could be deleted.  So EQ037 is raised at CREATE TRIGGER and the like.
 * Indexes, also unique ones, and nullable columns are allowed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_type.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "event_queue.h"
#include "table/own_parts.h"
#include "table/table.h"

/* The name of an event table or of one of history, or what is to be one? */
static bool
is_of_partitions(const char *relname)
{
	return strncmp(relname, "event_store", strlen("event_store")) == 0 ||
		   strncmp(relname, "job_history", strlen("job_history")) == 0;
}

/* Is it a table of ours that is written beneath the executor? */
bool
eq_is_written_beneath(Oid relid)
{
	static const char *const names[] = {"job",		  "dead_letter",
										"job_review", "job_step",
										"job_trace",  "aggregate_snapshot"};
	Oid schema = OidIsValid(relid) ? get_rel_namespace(relid) : InvalidOid;
	const char *relname;

	if (!OidIsValid(schema) || (schema != get_namespace_oid(EQ_SCHEMA, true) &&
								schema != get_namespace_oid(EQ_INTERNAL, true)))
		return false;
	relname = get_rel_name(relid);
	if (relname == NULL)
		return false;
	for (int i = 0; i < lengthof(names); i++)
	{
		if (strcmp(relname, names[i]) == 0)
			return true;
	}
	return is_of_partitions(relname);
}

static bool
is_written_beneath(RangeVar *name)
{
	return name && eq_is_written_beneath(RangeVarGetRelid(name, NoLock, true));
}

/* Finds a table of ours with a column of this domain, or of a domain over it. */
static Oid
find_user_of_domain(Oid domain)
{
	Relation depend = table_open(DependRelationId, AccessShareLock);
	Oid found = InvalidOid;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(TypeRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(domain));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	while (!OidIsValid(found) && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend row = (Form_pg_depend) GETSTRUCT(tuple);

		if (row->classid == RelationRelationId && eq_is_written_beneath(row->objid))
			found = row->objid;
		else if (row->classid == TypeRelationId &&
				 get_typtype(row->objid) == TYPTYPE_DOMAIN)
			found = find_user_of_domain(row->objid);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return found;
}

/*
 * partition.sql bounds the tables of events by CHECKs that append keeps: TABLE_first,
 * TABLE_last and TABLE_tenant.
 */
static bool
is_own_bound(Constraint *constraint, RangeVar *table)
{
	static const char *const bounds[] = {"first", "last", "tenant"};

	if (constraint->conname == NULL ||
		strncmp(table->relname, "event_store", 11) != 0)
		return false;
	for (int i = 0; i < lengthof(bounds); i++)
	{
		if (strcmp(constraint->conname,
				   psprintf("%s_%s", table->relname, bounds[i])) == 0)
			return true;
	}
	return false;
}

/* Is it a trigger function of the extension, as for new partitions and repairs? */
static bool
is_own_function(List *name)
{
	char *schema;
	char *function;

	DeconstructQualifiedName(name, &schema, &function);
	return schema != NULL && strcmp(schema, EQ_INTERNAL) == 0;
}

static void
refuse_on(const char *what, Oid relid, const char *hint)
{
	/* The guards of an older version's dump stand in another schema. */
	if (!eq_sql_is_current(NULL))
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_NOT_HONOURED),
		 errmsg("cannot have %s on table \"%s.%s\"", what,
				get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid)),
		 errdetail(
			 "The extension writes this table beneath the executor, where it would have no effect."),
		 errhint("%s", hint)));
}

static void
refuse(const char *what, RangeVar *table, const char *hint)
{
	refuse_on(what, RangeVarGetRelid(table, NoLock, true), hint);
}

#define ON_TABLE                                                                    \
	"Use a rule, a handler or a subscription; or keep the rest in a table of your own."
#define ON_KEY "Keep the id in a plain column: finished jobs are deleted."

/* A foreign key of "table" to a table of ours; not one to itself, while it is created. */
static void
check_reference(Constraint *constraint, RangeVar *table)
{
	RangeVar *to = constraint->pktable;

	if (constraint->contype == CONSTR_FOREIGN && is_written_beneath(to) &&
		(to->schemaname || strcmp(to->relname, table->relname) != 0))
		refuse("a foreign key", to, ON_KEY);
}

/* A constraint that is added to "table", or altered. */
static void
check_constraint(Constraint *constraint, RangeVar *table)
{
	bool ours = is_written_beneath(table);

	switch (constraint->contype)
	{
		case CONSTR_FOREIGN:
			if (is_written_beneath(constraint->pktable))
				refuse("a foreign key", constraint->pktable, ON_KEY);
			if (ours)
				refuse("a foreign key", table, ON_TABLE);
			break;
		case CONSTR_CHECK:
			if (ours && !is_own_bound(constraint, table))
				refuse("a check constraint", table, ON_TABLE);
			break;
		case CONSTR_NOTNULL:
			if (ours)
				refuse("NOT NULL", table, ON_TABLE);
			break;
		case CONSTR_PRIMARY:
		case CONSTR_UNIQUE:
		case CONSTR_EXCLUSION:
			if (ours && constraint->deferrable)
				refuse("a deferrable constraint", table, ON_TABLE);
			break;
		case CONSTR_ATTR_DEFERRABLE:
		case CONSTR_ATTR_DEFERRED:
			if (ours)
				refuse("a deferrable constraint", table, ON_TABLE);
			break;
		case CONSTR_DEFAULT:
		case CONSTR_IDENTITY:
		case CONSTR_GENERATED:
			if (ours)
				refuse("a default", table, ON_TABLE);
			break;
		default:
			break;
	}
}

/* EQ037 if the type of a new column implies a default or a constraint. */
static void
check_type(TypeName *name, RangeVar *table)
{
	static const char *const serials[] = {"smallserial", "serial2",	  "serial",
										  "serial4",	 "bigserial", "serial8"};
	Oid type;

	if (name == NULL || !is_written_beneath(table))
		return;
	for (int i = 0; i < lengthof(serials) && list_length(name->names) == 1; i++)
	{
		if (strcmp(strVal(linitial(name->names)), serials[i]) == 0)
			refuse("a default", table, ON_TABLE);
	}
	type = LookupTypeNameOid(NULL, name, true);
	if (OidIsValid(type) &&
		((get_typtype(type) == TYPTYPE_DOMAIN && DomainHasConstraints(type)) ||
		 get_typdefault(type) != NULL))
		refuse("a domain with constraints or a default", table, ON_TABLE);
}

static void
check_column(ColumnDef *column, RangeVar *table)
{
	ListCell *cell;

	check_type(column->typeName, table);
	foreach (cell, column->constraints)
		check_constraint(lfirst_node(Constraint, cell), table);
}

/* A domain that columns of our tables have is to get a constraint or a default. */
static void
check_domain(AlterDomainStmt *alter)
{
	TypeName *name = makeTypeNameFromNameList(alter->typeName);
	Oid domain = LookupTypeNameOid(NULL, name, true);
	Oid user;

	/* O: NOT NULL, C: a constraint, T: a default, which DROP DEFAULT leaves out. */
	if (!OidIsValid(domain) || !(alter->subtype == 'O' || alter->subtype == 'C' ||
								 (alter->subtype == 'T' && alter->def != NULL)))
		return;
	user = find_user_of_domain(domain);
	if (OidIsValid(user))
		refuse_on("a domain with constraints or a default", user, ON_TABLE);
}

/* A child of a table of ours, unless the extension itself makes it. */
static void
check_child(RangeVar *child, RangeVar *parent)
{
	if (is_written_beneath(parent) &&
		!(child->schemaname && strcmp(child->schemaname, EQ_SCHEMA) == 0 &&
		  is_of_partitions(child->relname)))
		refuse("a child or partition", parent, ON_TABLE);
}

/* Does the script of this extension run, and not that of another one? */
static bool
own_script_runs(void)
{
	char *name = creating_extension ? get_extension_name(CurrentExtensionObject)
									: NULL;

	return name != NULL && strcmp(name, EQ_EXTENSION) == 0;
}

/* A dump has the rows of our tables with all columns, and not the columns. */
static void
warn_of_columns(AlterTableStmt *alter)
{
	Oid relid = RangeVarGetRelid(alter->relation, NoLock, true);
	ListCell *cell;

	if (alter->objtype != OBJECT_TABLE || !OidIsValid(relid) ||
		getExtensionOfObject(RelationRelationId, relid) !=
			get_extension_oid(EQ_EXTENSION, true))
		return;
	foreach (cell, alter->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

		if (cmd->subtype == AT_AddColumn)
			ereport(
				WARNING,
				(errmsg("a restore does not make column \"%s\" of table \"%s.%s\"",
						((ColumnDef *) cmd->def)->colname,
						get_namespace_name(get_rel_namespace(relid)),
						get_rel_name(relid)),
				 errdetail(
					 "CREATE EXTENSION makes the table without it, and its rows in the dump have it: they would not be loaded."),
				 errhint(
					 "Restore in steps: pg_restore --section=pre-data, this ALTER TABLE again, then --section=data and --section=post-data.")));
	}
}

/*
 * Raises EQ037 if a utility statement makes what our writes would pass by, or EQ057 if it
 * changes what the extension has made.  restores: it is a dump's.
 */
void
eq_refuse_unheeded(Node *stmt, bool restores)
{
	ListCell *cell;

	if (IsBinaryUpgrade || !IsTransactionState() || own_script_runs())
		return;
	if (IsA(stmt, CreateTrigStmt))
	{
		CreateTrigStmt *trigger = (CreateTrigStmt *) stmt;

		if (is_written_beneath(trigger->relation) &&
			!is_own_function(trigger->funcname))
			refuse("a trigger", trigger->relation, ON_TABLE);
	}
	else if (IsA(stmt, RuleStmt))
	{
		RuleStmt *rule = (RuleStmt *) stmt;

		if (rule->event != CMD_SELECT && is_written_beneath(rule->relation))
			refuse("a rule", rule->relation, ON_TABLE);
	}
	else if (IsA(stmt, CreatePolicyStmt))
	{
		CreatePolicyStmt *policy = (CreatePolicyStmt *) stmt;

		/* Partitions have the policy of their parents. */
		if (is_written_beneath(policy->table) &&
			strcmp(policy->policy_name, "tenant_isolation") != 0)
			refuse("a policy", policy->table, ON_TABLE);
	}
	else if (IsA(stmt, AlterPolicyStmt))
	{
		AlterPolicyStmt *policy = (AlterPolicyStmt *) stmt;

		if (is_written_beneath(policy->table))
			refuse("a policy", policy->table, ON_TABLE);
	}
	else if (IsA(stmt, AlterDomainStmt))
		check_domain((AlterDomainStmt *) stmt);
	else if (IsA(stmt, CreateStmt) || IsA(stmt, CreateForeignTableStmt))
	{
		/* The latter begins with the former. */
		CreateStmt *create = (CreateStmt *) stmt;

		foreach (cell, create->inhRelations)
			check_child(create->relation, lfirst_node(RangeVar, cell));
		/* The table is not ours, even if one of ours has its name. */
		foreach (cell, create->tableElts)
		{
			if (IsA(lfirst(cell), Constraint))
				check_reference(lfirst(cell), create->relation);
			else if (IsA(lfirst(cell), ColumnDef))
			{
				ListCell *of_column;

				foreach (of_column, lfirst_node(ColumnDef, cell)->constraints)
					check_reference(lfirst(of_column), create->relation);
			}
		}
	}
	else if (IsA(stmt, AlterTableStmt))
	{
		AlterTableStmt *alter = (AlterTableStmt *) stmt;

		foreach (cell, alter->cmds)
		{
			AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

			if (cmd->subtype == AT_AddConstraint && IsA(cmd->def, Constraint))
				check_constraint((Constraint *) cmd->def, alter->relation);
			else if (cmd->subtype == AT_AddColumn)
				check_column((ColumnDef *) cmd->def, alter->relation);
			else if (cmd->subtype == AT_AlterColumnType)
			{
				check_type(((ColumnDef *) cmd->def)->typeName, alter->relation);
				/* Ours are written as what they were made. */
				if (is_written_beneath(alter->relation))
					refuse("a column of another type", alter->relation, ON_TABLE);
			}
			else if (cmd->subtype == AT_AddInherit)
				check_child(alter->relation, (RangeVar *) cmd->def);
			else if (cmd->subtype == AT_AttachPartition)
				check_child(((PartitionCmd *) cmd->def)->name, alter->relation);
			else if (cmd->subtype == AT_SetNotNull &&
					 is_written_beneath(alter->relation))
				refuse("NOT NULL", alter->relation, ON_TABLE);
			else if (((cmd->subtype == AT_ColumnDefault && cmd->def) ||
					  cmd->subtype == AT_AddIdentity) &&
					 is_written_beneath(alter->relation))
				refuse("a default", alter->relation, ON_TABLE);
		}
	}

	if (!allowSystemTableMods)
		eq_refuse_change_of_own(stmt, restores);
	/* The script of another extension is run again by a restore. */
	if (IsA(stmt, AlterTableStmt) && !restores && !creating_extension)
		warn_of_columns((AlterTableStmt *) stmt);
}
