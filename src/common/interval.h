/*
 * interval.h: converts intervals to microseconds and back.
 */
#ifndef EQ_INTERVAL_H
#define EQ_INTERVAL_H

#include "datatype/timestamp.h"

extern int64 eq_interval_us(const Interval *interval);
extern Interval *eq_make_interval(int64 us);

#endif /* EQ_INTERVAL_H */
