/*
 * compat.h: the differences between PostgreSQL 15 and 18, and nothing else.
 */
#ifndef EQ_COMPAT_H
#define EQ_COMPAT_H

#include "access/genam.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "storage/proc.h"
#include "utils/acl.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "event_queue needs PostgreSQL 15 to 18"
#endif

/* 18 has the prefix pg_noreturn in its place. */
#ifndef pg_attribute_noreturn
#define pg_attribute_noreturn() __attribute__((noreturn))
#endif

/* This backend's place in ProcGlobal->allProcs; below MaxBackends for all that run SQL. */
#if PG_VERSION_NUM >= 170000
#define EQ_MY_PROC_NUMBER ((int) MyProcNumber)
#else
#define EQ_MY_PROC_NUMBER (MyProc->pgprocno)
#endif

/* The present transaction of this backend. */
#if PG_VERSION_NUM >= 170000
#define EQ_MY_LXID (MyProc->vxid.lxid)
#else
#define EQ_MY_LXID (MyProc->lxid)
#endif

/* Does this session hold the lock, in this mode? */
#if PG_VERSION_NUM >= 170000
#define eq_lock_is_held(tag, mode) LockHeldByMe(tag, mode, false)
#else
#define eq_lock_is_held(tag, mode) LockHeldByMe(tag, mode)
#endif

/*
 * The set of events of the session's client: as libpq/libpq.h declares it, which
 * can't be included where GSSAPI's headers are not installed.
 */
extern PGDLLIMPORT struct WaitEventSet *FeBeWaitSet;
#define EQ_CLIENT_SOCKET 0 /* FeBeWaitSetSocketPos */
#define EQ_CLIENT_EVENTS 3 /* FeBeWaitSetNEvents */

/* 16 says which indexes an update needs, 15 whether it needs any. */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes EqUpdateIndexes;
#define EQ_NEEDS_INDEXES(u)	   ((u) != TU_None)
#define EQ_ONLY_SUMMARIZING(u) ((u) == TU_Summarizing)
#define eq_insert_index_tuples(rri, slot, estate, summarizing)                      \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, summarizing)
#else
typedef bool EqUpdateIndexes;
#define EQ_NEEDS_INDEXES(u)	   (u)
#define EQ_ONLY_SUMMARIZING(u) false
#define eq_insert_index_tuples(rri, slot, estate, summarizing)                      \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL)
#endif

/* 17 has an index method release what it keeps from row to row, as pins of buffers. */
#if PG_VERSION_NUM >= 170000
#define eq_index_insert_cleanup(index, info) index_insert_cleanup(index, info)
#else
#define eq_index_insert_cleanup(index, info) ((void) 0)
#endif

/* 18 lets a scan be instrumented. */
#if PG_VERSION_NUM >= 180000
#define eq_index_beginscan(heap, index, snapshot, nkeys)                            \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define eq_index_beginscan(heap, index, snapshot, nkeys)                            \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 16 renamed the checks of a function's and a schema's ACL. */
#if PG_VERSION_NUM >= 160000
#define eq_schema_aclcheck(schema, role, mode)                                      \
	object_aclcheck(NamespaceRelationId, schema, role, mode)
#define eq_function_aclcheck(function, role, mode)                                  \
	object_aclcheck(ProcedureRelationId, function, role, mode)
#else
#define eq_schema_aclcheck(schema, role, mode)                                      \
	pg_namespace_aclcheck(schema, role, mode)
#define eq_function_aclcheck(function, role, mode)                                  \
	pg_proc_aclcheck(function, role, mode)
#endif

/* 16 renamed the checks of owners. */
#if PG_VERSION_NUM >= 160000
#define eq_owns_database(dboid, role)                                               \
	object_ownercheck(DatabaseRelationId, dboid, role)
#define eq_owns_extension(extension, role)                                          \
	object_ownercheck(ExtensionRelationId, extension, role)
#define eq_owns_schema(schema, role)                                                \
	object_ownercheck(NamespaceRelationId, schema, role)
#define eq_owns_table(relid, role) object_ownercheck(RelationRelationId, relid, role)
#else
#define eq_owns_database(dboid, role)	   pg_database_ownercheck(dboid, role)
#define eq_owns_extension(extension, role) pg_extension_ownercheck(extension, role)
#define eq_owns_schema(schema, role)	   pg_namespace_ownercheck(schema, role)
#define eq_owns_table(relid, role)		   pg_class_ownercheck(relid, role)
#endif

/* May the role SET ROLE to that one?  16 made this an option of the membership. */
#if PG_VERSION_NUM >= 160000
#define eq_can_become(role, other) member_can_set_role(role, other)
#else
#define eq_can_become(role, other) is_member_of_role(role, other)
#endif

/*
 * Has the member anything of that role?  Since 16 it may have nothing: who creates a role
 * by CREATEROLE becomes a member that administers it, and neither inherits nor can SET it.
 */
#if PG_VERSION_NUM >= 160000
#define eq_acts_as(member, role)                                                    \
	(is_member_of_role_nosuper(member, role) &&                                     \
	 (has_privs_of_role(member, role) || member_can_set_role(member, role)))
#else
#define eq_acts_as(member, role) is_member_of_role_nosuper(member, role)
#endif

/* 17 ends a process whose transaction takes too long by a setting. */
#if PG_VERSION_NUM >= 170000
#define eq_allow_long_transactions()                                                \
	SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE)
#else
#define eq_allow_long_transactions() ((void) 0)
#endif

/* 18 has columns that are computed when they are read: a tuple has NULL for them. */
#if PG_VERSION_NUM >= 180000
#define EQ_IS_VIRTUAL(attribute)                                                    \
	((attribute)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#define EQ_HAS_VIRTUAL(desc)                                                        \
	((desc)->constr && (desc)->constr->has_generated_virtual)
#else
#define EQ_IS_VIRTUAL(attribute) false
#define EQ_HAS_VIRTUAL(desc)	 false
#endif

#endif /* EQ_COMPAT_H */
