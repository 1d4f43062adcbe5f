/*
 * try.h: calls a function in a subtransaction.
 */
#ifndef EQ_TRY_H
#define EQ_TRY_H

extern ErrorData *eq_try(void (*function)(void *), void *argument);
extern ErrorData *eq_try_and_undo(void (*function)(void *), void *argument);
extern bool eq_is_of_transaction(const ErrorData *error);
extern ErrorData *eq_abort_transaction(void);

#endif /* EQ_TRY_H */
