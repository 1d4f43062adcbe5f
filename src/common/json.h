/*
 * json.h: reads JSON that users pass, and builds the JSON that is stored.
 */
#ifndef EQ_JSON_H
#define EQ_JSON_H

#include "utils/jsonb.h"

extern JsonbValue *eq_json_member(const Jsonb *json, const char *key,
								  JsonbValue *buffer);
extern char *eq_json_string(const JsonbValue *value);
extern bool eq_json_int64(const JsonbValue *value, int64 *number);
extern bool eq_json_is_path(const JsonbValue *value);
extern bool eq_json_has_reference(const JsonbValue *value);
extern bool eq_json_fits_int64(const JsonbValue *value, int64 *number);
extern char *eq_json_string_member(JsonbContainer *object, const char *key);
extern Jsonb *eq_json_jsonb_member(JsonbContainer *object, const char *key);
extern void eq_json_check_members(JsonbContainer *object, const char *what,
								  const char *const *names);

extern Jsonb *eq_empty_object(void);
extern Jsonb *eq_json_from(const char *text);
extern void eq_json_add_string(JsonbParseState **state, const char *key,
							   const char *text, int max_bytes);
extern void eq_json_add_int64(JsonbParseState **state, const char *key,
							  int64 number);
extern void eq_json_add_jsonb(JsonbParseState **state, const char *key, Jsonb *json);
extern Jsonb *eq_json_without(Jsonb *object, const char *key);

#endif /* EQ_JSON_H */
