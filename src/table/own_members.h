/* own_members.h: for own_parts.c: what is a member of the extension, and EQ057 */
#ifndef EQ_OWN_MEMBERS_H
#define EQ_OWN_MEMBERS_H

#include "postgres.h"

#include "nodes/parsenodes.h"

extern void eq_refuse_own(const char *part);
extern bool eq_is_own_schema(const char *name);
extern char *eq_own_name(Oid relid);
extern bool eq_is_own_member(Oid class, Oid object);
extern void eq_check_own_type(Oid type);
extern void eq_check_own_type_name(List *names);
extern void eq_check_own_view(Oid relid);
extern void eq_check_own_function(ObjectType type, Node *name);
extern void eq_check_alter_function(AlterFunctionStmt *alter);
extern void eq_check_replace_function(CreateFunctionStmt *create);
extern void eq_check_replace_view(ViewStmt *view);
extern void eq_check_new_owner(Oid class, Oid object, RoleSpec *role);
extern void eq_check_alter_owner(AlterOwnerStmt *alter);
extern void eq_check_own_sequence(Oid relid, List *options);

#endif
