/*
 * store.h: what other rooms call of the event store.
 */
#ifndef EQ_STORE_H
#define EQ_STORE_H

#include "event_queue.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "nodes/nodes.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "store/tables.h"
#include "xact/xact.h"

/* Their parts of shared memory: watermark.c, activation.c. */
extern const EqSharedPart eq_positions_part;
extern const EqSharedPart eq_activations_part;

/* watermark.c: positions */
extern int64 eq_take_position(void);
extern EqXactKind eq_taken_positions;
extern EqXactKind eq_session_fetches; /* fetches.c */
extern EqXactKind eq_open_guards;	  /* guard.c */
extern int64 eq_watermark(void);
extern void eq_end_old_appends(void);
extern int64 eq_last_position(void);

/* generation.c: restores to an earlier point */
#define EQ_GENERATION_BITS 40 /* positions of one generation */
extern int64 eq_enter_generation(int64 next_position);
extern int64 eq_new_generation(int64 next_position);
extern void eq_raise_job_ids(int64 generation);
extern void eq_begin_generation(void); /* watermark.c */
extern Datum eq_generation_sql(PG_FUNCTION_ARGS);
extern void eq_check_not_ahead(int64 after, int64 last);

/* activation.c: copies hold */
typedef enum EqActivation
{
	EQ_NOT_LOADED, /* made by the script of a dump, or receives a subscription */
	EQ_ACTIVE,
	EQ_COPY /* of another database */
} EqActivation;

extern EqActivation eq_activation(bool anew);
extern void eq_require_active(void);
extern bool eq_in_restore(void);
extern int64 eq_watermark_of_copy(void);
extern bool eq_in_service(void);
extern bool eq_is_active_here(void);
extern bool eq_before_statement(Node *stmt, Oid *loaded);
extern void eq_after_load(Oid loaded);
extern void eq_after_statement(bool restores);
extern void eq_note_subscription(void);

/* publish.c: the watermark as standbys see it; wait_for_events.c: sleeping readers */
extern void eq_publish_watermark(void);
extern int64 eq_published_watermark(void);

/* Aggregate types that only the extension appends to. */
#define EQ_JOB_AGGREGATE   "event_queue.job"   /* queue/job_event.c */
#define EQ_TABLE_AGGREGATE "event_queue.table" /* rules/on_table.c */

/* append.c */
#define EQ_EXPECT_ANY	 (-1)
#define EQ_EXPECT_EXISTS (-2)

/* One aggregate that a call appends to. */
typedef struct EqAggregate
{
	const char *type;
	const char *id;
	int32 expected; /* version, or EQ_EXPECT_... */
	uint32 hash;	/* of its key lock */
	int32 version;	/* the newest; after the call, of its last event */
} EqAggregate;

typedef struct EqEvent
{
	EqAggregate *aggregate;
	char *type;
	Jsonb *data;
	Jsonb *metadata;
	pg_uuid_t id;
	bool id_given;
	int64 position; /* out, as the next two */
	int32 version;
	bool duplicate;
} EqEvent;

extern void eq_append_events(const char *tenant, EqAggregate *aggregates,
							 int n_aggregates, EqEvent *events, int n_events);
/* arguments.c */
extern void eq_complete_event(EqEvent *event);
extern void eq_refuse_reserved(const char *aggregate_type, const char *event_type);

/* lineage.c: who did it, and why */
extern Jsonb *eq_event_metadata(Jsonb *given);
extern Jsonb *eq_change_metadata(void);
extern Jsonb *eq_job_metadata(Jsonb *given);
extern void eq_enter_job(int64 job_id, Jsonb *metadata);
extern void eq_enter_jobs(Jsonb *metadata);
extern bool eq_may_share_call(Jsonb *a, Jsonb *b);
extern void eq_leave_job(void);
extern bool eq_is_in_job(void);
extern bool eq_check_rule_chain(char **value, void **extra, GucSource source);

/* filter.c: which events are wanted */
typedef struct EqFilter
{
	char *pattern; /* of event types; NULL: all, as below */
	char *aggregate_type;
	const char *tenant;
	Jsonb *data; /* event_data contains it */
} EqFilter;

extern void eq_parse_filter(EqFilter *filter, Jsonb *json);
extern bool eq_filter_matches(const EqFilter *filter, TupleTableSlot *slot);

/* read.c: events above a position, in order, in a fresh snapshot */
typedef struct EqReader EqReader;
extern EqReader *eq_reader_begin(int64 after, int64 up_to, const EqFilter *filter);
extern TupleTableSlot *eq_reader_next(EqReader *reader);
extern int64 eq_reader_end(EqReader *reader);
extern int64 eq_read_events(int64 after, int64 up_to, int limit,
							const EqFilter *filter, Tuplestorestate *into);
extern int64 eq_event_slot_position(TupleTableSlot *slot);

/* uuid7.c */
extern void eq_make_uuid_v7(pg_uuid_t *uuid, int64 now);

/* fingerprint.c */
extern uint64 eq_code_of(Oid function);

#endif /* EQ_STORE_H */
