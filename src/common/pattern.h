/*
 * pattern.h: matches the types of events with patterns.
 */
#ifndef EQ_PATTERN_H
#define EQ_PATTERN_H

extern void eq_check_pattern(const char *pattern);
extern bool eq_pattern_matches(const char *event_type, const char *pattern);

#endif /* EQ_PATTERN_H */
