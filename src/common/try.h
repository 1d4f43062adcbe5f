/*
 * try.h: steps whose errors are not the transaction's.
 */
#ifndef EQ_TRY_H
#define EQ_TRY_H

extern ErrorData *eq_try(void (*step)(void *), void *argument);
extern ErrorData *eq_abort_transaction(void);

#endif /* EQ_TRY_H */
