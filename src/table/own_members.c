/*
 * own_members.c: functions, views, types, sequences and schemas of the extension stay as
 * they are (EQ057); own_parts.c says why, and has the parts of tables.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_func.h"
#include "parser/parse_type.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "event_queue.h"
#include "table/own_members.h"
#include "table/table.h"

void
eq_refuse_own(const char *part)
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

bool
eq_is_own_schema(const char *name)
{
	return name != NULL &&
		   (strcmp(name, EQ_SCHEMA) == 0 || strcmp(name, EQ_INTERNAL) == 0);
}

/* The qualified name of a relation in a schema of ours, or NULL. */
char *
eq_own_name(Oid relid)
{
	char *schema = OidIsValid(relid) ? get_namespace_name(get_rel_namespace(relid))
									 : NULL;

	return eq_is_own_schema(schema) ? psprintf("%s.%s", schema, get_rel_name(relid))
									: NULL;
}

/* Has the extension's script made it?  (Users may have objects in our schemas, too.) */
bool
eq_is_own_member(Oid class, Oid object)
{
	return OidIsValid(object) && getExtensionOfObject(class, object) ==
									 get_extension_oid(EQ_EXTENSION, true);
}

/* EQ057 if the type is the extension's; users may have types in our schemas, too. */
void
eq_check_own_type(Oid type)
{
	if (eq_is_own_member(TypeRelationId, type))
		eq_refuse_own(psprintf("type \"%s\"", format_type_be_qualified(type)));
}

static bool
is_view(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_VIEW &&
		   eq_is_own_member(RelationRelationId, relid);
}

void
eq_check_own_view(Oid relid)
{
	if (is_view(relid))
		eq_refuse_own(psprintf("view \"%s\"", eq_own_name(relid)));
}

static void
check_function(Oid function)
{
	if (eq_is_own_member(ProcedureRelationId, function))
		eq_refuse_own(psprintf("function %s", format_procedure(function)));
}

void
eq_check_own_function(ObjectType type, Node *name)
{
	check_function(LookupFuncWithArgs(type, castNode(ObjectWithArgs, name), true));
}

/* EQ057 unless only COST, ROWS or settings other than search_path change. */
void
eq_check_alter_function(AlterFunctionStmt *alter)
{
	ListCell *cell;

	foreach (cell, alter->actions)
	{
		DefElem *action = lfirst_node(DefElem, cell);

		if (strcmp(action->defname, "set") == 0)
		{
			VariableSetStmt *set = castNode(VariableSetStmt, action->arg);

			if (set->kind != VAR_RESET_ALL &&
				pg_strcasecmp(set->name, "search_path") != 0)
				continue;
		}
		else if (strcmp(action->defname, "cost") == 0 ||
				 strcmp(action->defname, "rows") == 0)
			continue;
		eq_check_own_function(alter->objtype, (Node *) alter->func);
	}
}

/* CREATE OR REPLACE FUNCTION, with the arguments of one of ours? */
void
eq_check_replace_function(CreateFunctionStmt *create)
{
	Oid types[FUNC_MAX_ARGS];
	int n = 0;
	char *name;
	Oid schema = QualifiedNameGetCreationNamespace(create->funcname, &name);
	ListCell *cell;

	if (!eq_is_own_schema(get_namespace_name(schema)))
		return;
	foreach (cell, create->parameters)
	{
		FunctionParameter *parameter = lfirst_node(FunctionParameter, cell);

		if (parameter->mode == FUNC_PARAM_OUT || parameter->mode == FUNC_PARAM_TABLE)
			continue;
		if (n == FUNC_MAX_ARGS)
			return;
		types[n++] = LookupTypeNameOid(NULL, parameter->argType, true);
	}
	check_function(GetSysCacheOid3(
		PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
		PointerGetDatum(buildoidvector(types, n)), ObjectIdGetDatum(schema)));
}

/* CREATE OR REPLACE VIEW makes one where it would be created, whatever is on the path. */
void
eq_check_replace_view(ViewStmt *view)
{
	if (view->view->relpersistence != RELPERSISTENCE_TEMP)
		eq_check_own_view(get_relname_relid(
			view->view->relname, RangeVarGetCreationNamespace(view->view)));
}

/* Another role than the extension's owner, unless both are superusers? */
static bool
is_other_owner(RoleSpec *role)
{
	Oid now = eq_extension_owner();
	Oid owner = get_rolespec_oid(role, true);

	return OidIsValid(owner) && owner != now &&
		   !(superuser_arg(owner) && superuser_arg(now));
}

/*
 * EQ057 if a part alone gets another owner: functions that run as one owner would use tables
 * of another.  REASSIGN OWNED, which changes all, is allowed.
 */
void
eq_check_new_owner(Oid class, Oid object, RoleSpec *role)
{
	ObjectAddress address;

	if (eq_is_own_member(class, object) && is_other_owner(role))
	{
		ObjectAddressSet(address, class, object);
		eq_refuse_own(
			psprintf("the owner of %s", getObjectDescription(&address, false)));
	}
}

/* The next number may be set, as pg_dump does; the way in which they are given may not. */
void
eq_check_own_sequence(Oid relid, List *options)
{
	ListCell *cell;

	if (!eq_is_own_member(RelationRelationId, relid))
		return;
	foreach (cell, options)
	{
		if (strcmp(lfirst_node(DefElem, cell)->defname, "restart") != 0)
			eq_refuse_own(psprintf("sequence \"%s\"", eq_own_name(relid)));
	}
}

void
eq_check_own_type_name(List *names)
{
	eq_check_own_type(
		LookupTypeNameOid(NULL, makeTypeNameFromNameList(names), true));
}

void
eq_check_alter_owner(AlterOwnerStmt *alter)
{
	switch (alter->objectType)
	{
		case OBJECT_FUNCTION:
		case OBJECT_PROCEDURE:
		case OBJECT_ROUTINE:
			eq_check_new_owner(
				ProcedureRelationId,
				LookupFuncWithArgs(alter->objectType,
								   castNode(ObjectWithArgs, alter->object), true),
				alter->newowner);
			break;
		case OBJECT_TYPE:
			eq_check_new_owner(
				TypeRelationId,
				LookupTypeNameOid(
					NULL, makeTypeNameFromNameList((List *) alter->object), true),
				alter->newowner);
			break;
		case OBJECT_SCHEMA:
		{
			char *name = strVal(alter->object);

			/* Who owns it may put functions before ours.  A dump makes it first. */
			if (eq_is_own_schema(name) &&
				OidIsValid(get_extension_oid(EQ_EXTENSION, true)) &&
				is_other_owner(alter->newowner))
				eq_refuse_own(psprintf("the owner of schema \"%s\"", name));
			break;
		}
		default:
			break;
	}
}
