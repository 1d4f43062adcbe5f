/*
 * exit.h: for exit callbacks that start a transaction.
 */
#ifndef EQ_EXIT_H
#define EQ_EXIT_H

extern void eq_limit_exit(void);
extern void eq_end_exit_limit(void);
extern void eq_begin_exit_transaction(void);
extern void eq_commit_exit_transaction(void);

#endif /* EQ_EXIT_H */
