/*
 * access.h: event_queue.log_tenant_access (access.c).
 */
#ifndef EQ_ACCESS_H
#define EQ_ACCESS_H

extern bool eq_log_tenant_access;
extern void eq_note_tenant_access(const char *tenant, int length);

#endif /* EQ_ACCESS_H */
