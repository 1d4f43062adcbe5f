/*
 * dblink.h: what extension dblink keeps open in a process.
 */
#ifndef EQ_DBLINK_H
#define EQ_DBLINK_H

extern void eq_close_dblink(void);

#endif /* EQ_DBLINK_H */
