/*
 * json.h: looking into JSON that a user gave.
 *
 * The server's own look-up takes for granted that it is given an object: an array
 * is read beyond its end.  What comes from a table or an argument goes through here.
 */
#ifndef EQ_JSON_H
#define EQ_JSON_H

#include "utils/jsonb.h"

/* A member of an object; NULL if there is none, or if it is no object. */
static inline JsonbValue *
eq_json_member(const Jsonb *json, const char *key, JsonbValue *buffer)
{
	if (json == NULL || !JB_ROOT_IS_OBJECT(json))
		return NULL;
	return getKeyJsonValueFromContainer((JsonbContainer *) &json->root, key,
										strlen(key), buffer);
}

#endif /* EQ_JSON_H */
