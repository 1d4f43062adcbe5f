/*
 * store.h: what other rooms may ask of the event store.
 */
#ifndef EQ_STORE_H
#define EQ_STORE_H

#include "event_queue.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

/* watermark.c: positions */
extern int64 eq_take_position(void);
extern bool eq_release_positions(void);
extern bool eq_has_open_append(void);
extern int64 eq_watermark(void);
extern int64 eq_last_position(void);

/* read.c: fills the store with up to limit events; returns the last position, 0 if none */
extern int64 eq_read_events(int64 after, int64 up_to, int limit, const char *tenant,
							Tuplestorestate *into);

/* append.c */
extern void eq_check_payload(const char *what, Jsonb *payload);

/* uuid7.c */
extern void eq_make_uuid_v7(pg_uuid_t *uuid, int64 now);

#endif /* EQ_STORE_H */
