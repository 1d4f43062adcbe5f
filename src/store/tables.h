/*
 * tables.h: tables of the event store, and the list of those that hold events.
 */
#ifndef EQ_STORE_TABLES_H
#define EQ_STORE_TABLES_H

#include "table/table.h"

/* Columns, in the order of the CREATE TABLE in the SQL parts; from 1. */
enum
{
	EVENT_POSITION = 1,
	EVENT_ID,
	EVENT_TENANT,
	EVENT_AGGREGATE_TYPE,
	EVENT_AGGREGATE_ID,
	EVENT_VERSION,
	EVENT_TYPE,
	EVENT_DATA,
	EVENT_METADATA,
	EVENT_CREATED_AT,
	EVENT_COLUMNS = EVENT_CREATED_AT
};

enum
{
	PARTITION_ID = 1,
	PARTITION_NAME,
	PARTITION_TENANT,
	PARTITION_FIRST_POSITION,
	PARTITION_LAST_POSITION,
	PARTITION_SPLIT_OFF
};

enum
{
	SNAPSHOT_AGGREGATE_ID = 1,
	SNAPSHOT_AGGREGATE_TYPE,
	SNAPSHOT_TENANT,
	SNAPSHOT_VERSION,
	SNAPSHOT_POSITION,
	SNAPSHOT_STATE,
	SNAPSHOT_EVENT_AT,
	SNAPSHOT_REDUCER,
	SNAPSHOT_IS_BASE,
	SNAPSHOT_COLUMNS = SNAPSHOT_IS_BASE
};

/* Relations, for eq_relation_oid. */
extern EqRelationName eq_store_relations[];

enum
{
	EQ_STORE_EVENT_STORE,
	EQ_STORE_EVENT_POSITION,
	EQ_STORE_EVENT_GENERATION,
	EQ_STORE_EVENT_PARTITION,
	EQ_STORE_EVENT_PARTITION_PKEY,
	EQ_STORE_AGGREGATE_SNAPSHOT,
	EQ_STORE_AGGREGATE_SNAPSHOT_PKEY,
	EQ_STORE_ACTIVATION,
	EQ_STORE_IDS_OF_JOBS,
	EQ_STORE_FAILED_LOADS
};

#define EQ_EVENT_STORE			(&eq_store_relations[EQ_STORE_EVENT_STORE])
#define EQ_EVENT_POSITION		(&eq_store_relations[EQ_STORE_EVENT_POSITION])
#define EQ_EVENT_GENERATION		(&eq_store_relations[EQ_STORE_EVENT_GENERATION])
#define EQ_EVENT_PARTITION		(&eq_store_relations[EQ_STORE_EVENT_PARTITION])
#define EQ_EVENT_PARTITION_PKEY (&eq_store_relations[EQ_STORE_EVENT_PARTITION_PKEY])
#define EQ_AGGREGATE_SNAPSHOT	(&eq_store_relations[EQ_STORE_AGGREGATE_SNAPSHOT])
#define EQ_AGGREGATE_SNAPSHOT_PKEY                                                  \
	(&eq_store_relations[EQ_STORE_AGGREGATE_SNAPSHOT_PKEY])
#define EQ_ACTIVATION	(&eq_store_relations[EQ_STORE_ACTIVATION])
#define EQ_IDS_OF_JOBS	(&eq_store_relations[EQ_STORE_IDS_OF_JOBS])
#define EQ_FAILED_LOADS (&eq_store_relations[EQ_STORE_FAILED_LOADS])

/*
 * The tables that hold events (leaves.c): event_store and its partitions.  Of
 * one aggregate, each has newer events than those behind it in the list.
 */
typedef struct EqLeaf
{
	Oid relid;
	Oid pkey;	   /* position */
	Oid aggregate; /* aggregate id, type, tenant, version */
	Oid id;		   /* event id, tenant */
	Oid by_type;   /* these three if create_event_index made them */
	Oid by_aggregate_type;
	Oid by_tenant;
	int64 first_position;
	int64 last_position; /* 0: it may still grow */
	char *tenant;		 /* holds this tenant's events only; NULL: any */
	bool is_sealed;		 /* takes no more events */
} EqLeaf;

extern int eq_event_leaves(EqLeaf **leaves);
extern int eq_event_leaves_for(Snapshot snapshot, EqLeaf **leaves);
extern int eq_copy_event_leaves(Snapshot snapshot, EqLeaf **leaves);
extern bool eq_events_were_archived(void);
extern void eq_forget_leaves(void);
extern void eq_aggregate_keys(EqScan *scan, ScanKey keys, const char *tenant,
							  const char *type, const char *id);

#endif /* EQ_STORE_TABLES_H */
