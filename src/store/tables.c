/*
 * tables.c: names of the store's relations.
 */
#include "postgres.h"

#include "store/tables.h"

EqRelationName eq_store_relations[] = {
	[EQ_STORE_EVENT_STORE] = {"event_store", eq_forget_leaves},
	[EQ_STORE_EVENT_POSITION] = {"event_position"},
	[EQ_STORE_EVENT_GENERATION] = {"event_generation"},
	[EQ_STORE_EVENT_PARTITION] = {"event_partition", eq_forget_leaves},
	[EQ_STORE_EVENT_PARTITION_PKEY] = {"event_partition_pkey"},
	[EQ_STORE_AGGREGATE_SNAPSHOT] = {"aggregate_snapshot"},
	[EQ_STORE_AGGREGATE_SNAPSHOT_PKEY] = {"aggregate_snapshot_pkey"},
	[EQ_STORE_ACTIVATION] = {"activation"},
	[EQ_STORE_IDS_OF_JOBS] = {"job_job_id_seq"},
	[EQ_STORE_FAILED_LOADS] = {"failed_loads"},
};
