/*
 * doctor.h: what the files of "eventq doctor" share.
 */
#ifndef EVENTQ_DOCTOR_H
#define EVENTQ_DOCTOR_H

#include "eventq.h"

/* What a check answers: rows of (level, item, detail, repair); no row: all is well. */
typedef struct DoctorCheck
{
	const char *area;
	const char *sql;
} DoctorCheck;

extern const DoctorCheck eq_doctor_checks[]; /* ends with {NULL} */

/* doctor_catalog.c */
extern const char *eq_doctor_catalog_sql;
extern const char *eq_doctor_functions_sql;
extern void eq_doctor_expected(EqBuf *json);
extern const char *eq_doctor_repair(int number);

#endif /* EVENTQ_DOCTOR_H */
