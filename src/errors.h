/*
 * errors.h: the SQLSTATEs of class EQ, one for each cause.
 *
 * They are part of the interface (doc/reference.md lists them); a code is never
 * given to another cause.  SQL parts name them as literals.
 */
#ifndef EQ_ERRORS_H
#define EQ_ERRORS_H

#include "utils/elog.h"

#define ERRCODE_EQ_NOT_PRELOADED		  MAKE_SQLSTATE('E', 'Q', '0', '0', '0')
#define ERRCODE_EQ_WRONG_EXPECTED_VERSION MAKE_SQLSTATE('E', 'Q', '0', '0', '1')
#define ERRCODE_EQ_EVENT_ID_CONFLICT	  MAKE_SQLSTATE('E', 'Q', '0', '0', '2')
#define ERRCODE_EQ_TENANT_MISMATCH		  MAKE_SQLSTATE('E', 'Q', '0', '0', '3')
#define ERRCODE_EQ_TENANT_REQUIRED		  MAKE_SQLSTATE('E', 'Q', '0', '0', '4')
#define ERRCODE_EQ_PAYLOAD_TOO_LARGE	  MAKE_SQLSTATE('E', 'Q', '0', '0', '5')
#define ERRCODE_EQ_INVALID_NAME			  MAKE_SQLSTATE('E', 'Q', '0', '0', '6')
#define ERRCODE_EQ_APPEND_ONLY			  MAKE_SQLSTATE('E', 'Q', '0', '0', '7')
#define ERRCODE_EQ_NOT_SUPPORTED_HERE	  MAKE_SQLSTATE('E', 'Q', '0', '0', '8')
#define ERRCODE_EQ_INVALID_ARGUMENT		  MAKE_SQLSTATE('E', 'Q', '0', '0', '9')
#define ERRCODE_EQ_UNKNOWN_QUEUE		  MAKE_SQLSTATE('E', 'Q', '0', '1', '0')
#define ERRCODE_EQ_DUPLICATE_QUEUE		  MAKE_SQLSTATE('E', 'Q', '0', '1', '1')
#define ERRCODE_EQ_INVALID_SETTING		  MAKE_SQLSTATE('E', 'Q', '0', '1', '2')
#define ERRCODE_EQ_QUEUE_IN_USE			  MAKE_SQLSTATE('E', 'Q', '0', '1', '3')
#define ERRCODE_EQ_INVALID_DELAY		  MAKE_SQLSTATE('E', 'Q', '0', '1', '4')
#define ERRCODE_EQ_INVALID_PRIORITY		  MAKE_SQLSTATE('E', 'Q', '0', '1', '5')
#define ERRCODE_EQ_LEASE_LOST			  MAKE_SQLSTATE('E', 'Q', '0', '1', '6')
#define ERRCODE_EQ_UNKNOWN_DEAD_LETTER	  MAKE_SQLSTATE('E', 'Q', '0', '1', '7')
#define ERRCODE_EQ_DUPLICATE_OBJECT		  MAKE_SQLSTATE('E', 'Q', '0', '1', '8')
#define ERRCODE_EQ_INVALID_ACTION		  MAKE_SQLSTATE('E', 'Q', '0', '1', '9')
#define ERRCODE_EQ_UNKNOWN_FUNCTION		  MAKE_SQLSTATE('E', 'Q', '0', '2', '0')
#define ERRCODE_EQ_WRONG_SIGNATURE		  MAKE_SQLSTATE('E', 'Q', '0', '2', '1')
#define ERRCODE_EQ_INVALID_CONDITION	  MAKE_SQLSTATE('E', 'Q', '0', '2', '2')
#define ERRCODE_EQ_INVALID_PATTERN		  MAKE_SQLSTATE('E', 'Q', '0', '2', '3')
#define ERRCODE_EQ_INVALID_TEMPLATE		  MAKE_SQLSTATE('E', 'Q', '0', '2', '4')
#define ERRCODE_EQ_UNKNOWN_OBJECT		  MAKE_SQLSTATE('E', 'Q', '0', '2', '5')
#define ERRCODE_EQ_INVALID_TIME_LIMIT	  MAKE_SQLSTATE('E', 'Q', '0', '2', '6')
#define ERRCODE_EQ_PARTLY_WRITTEN		  MAKE_SQLSTATE('E', 'Q', '0', '2', '7')
#define ERRCODE_EQ_AHEAD_OF_STORE		  MAKE_SQLSTATE('E', 'Q', '0', '2', '8')
#define ERRCODE_EQ_NOT_FETCHED			  MAKE_SQLSTATE('E', 'Q', '0', '2', '9')
#define ERRCODE_EQ_INVALID_CRON			  MAKE_SQLSTATE('E', 'Q', '0', '3', '0')
#define ERRCODE_EQ_UNKNOWN_TIME_ZONE	  MAKE_SQLSTATE('E', 'Q', '0', '3', '1')
#define ERRCODE_EQ_UNKNOWN_JOB			  MAKE_SQLSTATE('E', 'Q', '0', '3', '2')
#define ERRCODE_EQ_JOB_CANCELLED		  MAKE_SQLSTATE('E', 'Q', '0', '3', '3')
#define ERRCODE_EQ_QUEUE_DRAINING		  MAKE_SQLSTATE('E', 'Q', '0', '3', '4')
#define ERRCODE_EQ_INTERNAL_QUEUE		  MAKE_SQLSTATE('E', 'Q', '0', '3', '5')
#define ERRCODE_EQ_NOT_ACTIVATED		  MAKE_SQLSTATE('E', 'Q', '0', '3', '6')
#define ERRCODE_EQ_NOT_HONOURED			  MAKE_SQLSTATE('E', 'Q', '0', '3', '7')
#define ERRCODE_EQ_OWNER_OUT			  MAKE_SQLSTATE('E', 'Q', '0', '3', '8')
#define ERRCODE_EQ_AMBIGUOUS_NAME		  MAKE_SQLSTATE('E', 'Q', '0', '3', '9')
#define ERRCODE_EQ_NOT_ENDED			  MAKE_SQLSTATE('E', 'Q', '0', '4', '0')
#define ERRCODE_EQ_NOT_CALLABLE			  MAKE_SQLSTATE('E', 'Q', '0', '4', '1')
#define ERRCODE_EQ_KEY_IS_RUNNING		  MAKE_SQLSTATE('E', 'Q', '0', '4', '3')
#define ERRCODE_EQ_WOULD_WAIT			  MAKE_SQLSTATE('E', 'Q', '0', '4', '4')
#define ERRCODE_EQ_OTHER_VERSION		  MAKE_SQLSTATE('E', 'Q', '0', '4', '5')
#define ERRCODE_EQ_EVENTS_ARCHIVED		  MAKE_SQLSTATE('E', 'Q', '0', '4', '6')
#define ERRCODE_EQ_TWO_TENANTS			  MAKE_SQLSTATE('E', 'Q', '0', '4', '7')
#define ERRCODE_EQ_SHARED_BY_TENANTS	  MAKE_SQLSTATE('E', 'Q', '0', '4', '8')
#define ERRCODE_EQ_ROLE_IS_BOUND		  MAKE_SQLSTATE('E', 'Q', '0', '4', '9')
#define ERRCODE_EQ_INVALID_ALERT		  MAKE_SQLSTATE('E', 'Q', '0', '5', '2')
#define ERRCODE_EQ_NO_FIGURES			  MAKE_SQLSTATE('E', 'Q', '0', '5', '3')
#define ERRCODE_EQ_INVALID_START		  MAKE_SQLSTATE('E', 'Q', '0', '5', '4')
#define ERRCODE_EQ_HANDLER_FAILED		  MAKE_SQLSTATE('E', 'Q', '0', '6', '0')
#define ERRCODE_EQ_HANDLER_SNOOZED		  MAKE_SQLSTATE('E', 'Q', '0', '6', '1')

#endif /* EQ_ERRORS_H */
