/*
 * refuse.c: what would not be honoured is refused when it is made.
 *
 * Events, jobs, dead letters, history and snapshots are written beneath the
 * executor: triggers and rules of users would not fire there, CHECKs, NOT NULL
 * and defaults would not hold, and a row that a foreign key refers to could go.
 * Nobody would be told; so EQ037 says it at CREATE TRIGGER and its kin.  Indexes
 * are kept, also unique ones, and columns that may be NULL.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/lsyscache.h"

#include "event_queue.h"
#include "table/table.h"

/* Is it a table of ours that is written beneath the executor? */
static bool
is_written_beneath(RangeVar *name)
{
	static const char *const names[] = {"job", "dead_letter", "job_review",
										"aggregate_snapshot"};
	Oid relid = name ? RangeVarGetRelid(name, NoLock, true) : InvalidOid;
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
	/* With their partitions. */
	return strncmp(relname, "event_store", strlen("event_store")) == 0 ||
		   strncmp(relname, "job_history", strlen("job_history")) == 0;
}

/* Triggers that the extension's own functions make on new partitions. */
static bool
is_own_function(List *name)
{
	char *schema;
	char *function;

	DeconstructQualifiedName(name, &schema, &function);
	return schema != NULL && strcmp(schema, EQ_INTERNAL) == 0 &&
		   strcmp(function, "refuse_change") == 0;
}

static void
refuse(const char *what, RangeVar *table, const char *hint)
{
	/* The guards of an older version's dump stand in another schema. */
	if (!eq_sql_is_current(NULL))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_EQ_NOT_HONOURED),
			 errmsg("%s would not hold for %s.%s", what,
					get_namespace_name(
						get_rel_namespace(RangeVarGetRelid(table, NoLock, true))),
					table->relname),
			 errdetail("The extension writes this table beneath the executor."),
			 errhint("%s", hint)));
}

#define ON_TABLE                                                                    \
	"Use a rule, a handler or a subscription; or keep the rest in a table of your own."
#define ON_KEY "Keep the id in a plain column: finished jobs are deleted."

/* A constraint of "table", new or altered. */
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
			/* partition.sql bounds the tables of events. */
			if (ours && !(constraint->conname &&
						  strncmp(constraint->conname, "event_store", 11) == 0))
				refuse("a check", table, ON_TABLE);
			break;
		case CONSTR_NOTNULL:
			if (ours)
				refuse("NOT NULL", table, ON_TABLE);
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

static void
check_column(ColumnDef *column, RangeVar *table)
{
	ListCell *cell;

	foreach (cell, column->constraints)
		check_constraint(lfirst_node(Constraint, cell), table);
}

/* Raises EQ037 if a utility statement makes what our writes would pass by. */
void
eq_refuse_unheeded(Node *stmt)
{
	ListCell *cell;

	if (creating_extension || IsBinaryUpgrade || !IsTransactionState())
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
	else if (IsA(stmt, CreateStmt))
	{
		CreateStmt *create = (CreateStmt *) stmt;

		/* Partitions of our tables have what those have. */
		foreach (cell, create->tableElts)
		{
			if (IsA(lfirst(cell), Constraint))
				check_constraint(lfirst(cell), create->relation);
			else if (IsA(lfirst(cell), ColumnDef))
				check_column(lfirst(cell), create->relation);
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
			else if (cmd->subtype == AT_SetNotNull &&
					 is_written_beneath(alter->relation))
				refuse("NOT NULL", alter->relation, ON_TABLE);
			else if (cmd->subtype == AT_ColumnDefault && cmd->def &&
					 is_written_beneath(alter->relation))
				refuse("a default", alter->relation, ON_TABLE);
		}
	}
}
