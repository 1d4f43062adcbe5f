/*
 * leftovers.h: what user code leaves in a worker's session.
 */
#ifndef EQ_LEFTOVERS_H
#define EQ_LEFTOVERS_H

/* In a transaction. */
extern void eq_drop_leftovers(void);

#endif /* EQ_LEFTOVERS_H */
