/*
 * state.h: states of aggregates; for the files of the store.
 */
#ifndef EQ_STATE_H
#define EQ_STATE_H

#include "fmgr.h"
#include "datatype/timestamp.h"
#include "utils/jsonb.h"

/* The fold of an aggregate's events. */
typedef struct EqState
{
	Jsonb *value; /* NULL: it has no event */
	int32 version;
	int64 position;
	TimestampTz event_at; /* of its last event */
	int64 reducer;		  /* fingerprint */
} EqState;

/* merge.c */
extern Jsonb *eq_merge_patch(Jsonb *target, Jsonb *patch);

/* state.c: 0 and DT_NOEND mean the newest */
extern void eq_fold(EqState *state, const char *tenant, const char *type,
					const char *id, int32 at_version, TimestampTz at_time);

/* fingerprint.c */
extern uint64 eq_code_named_in(const char *expression);
extern uint32 eq_changes_of_functions(void);
extern int64 eq_fingerprint_of(const char *name, Oid function, int32 revision);

/* snapshot.c */
extern int32 eq_take_snapshot(const char *tenant, const char *type, const char *id);

#endif /* EQ_STATE_H */
